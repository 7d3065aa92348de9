"""The classifier that the tests of the HTTP service serve."""

from __future__ import annotations

import numpy as np
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf

NAMES = (*"abcdefghijk", 'ℓ, "quoted"')
IMAGES = make_images(np.arange(NEW), rows=3, seed=9)[0]
VECTOR = make_semantics()[NEW].tolist()


def trained() -> mf.ZeroShotClassifier:
    """Of all heads, with a calibration."""
    run = config("gzsl", epochs=1, **{"softmax.epochs": 2})
    classifier = mf.ZeroShotClassifier(run, calibration=0.1)
    return classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW], class_names=NAMES)


def solved() -> mf.ZeroShotClassifier:
    """Without a training."""
    classifier = mf.ZeroShotClassifier("eszsl", task="gzsl", options={"selection": "none"})
    return classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW], class_names=NAMES)
