"""The strengths of transductive classification, chosen on folds of the seen classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from mcfa_fast.classifiers.transductive import ImageSet
from mcfa_fast.classifiers.transductive_inputs import (
    Labelled,
    TransductionConfig,
    as_class_sizes,
    as_scores,
)
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.evaluation.metrics import harmonic_mean, mean_class_accuracy
from mcfa_fast.selection.calibration import HeldOutScores
from mcfa_fast.selection.folds import ClassFold
from mcfa_fast.selection.result import Selection, TransductionChoice

__all__ = ["STRENGTHS", "choose_strengths"]

STRENGTHS: dict[str, Sequence[Any]] = {
    "balance": (0.9, 0.7),
    "likelihood": (0.5, 1.0),
    "initial": (0.5, 1.0),
}
"""What is chosen from; of equally good ones the first."""


def choose_strengths(
    held_out: Sequence[HeldOutScores], selection: Selection, data: TrainingData
) -> dict[str, TransductionChoice]:
    """Choose for every head, on all folds together.

    Held-out images are the unlabelled set, the fold's training images the labelled ones. No test
    image, unlabelled as it is, has a part in it.

    Args:
        held_out: scores of every fold.
        selection: what was chosen for the scores themselves, of which the calibration is used.
        data: the images of the seen classes.
    """
    points = product(*STRENGTHS.values())
    settings = [dict(zip(STRENGTHS, point, strict=True)) for point in points]
    images = [_images(one.fold, data) for one in held_out]
    chosen = {}
    for head in held_out[0].scores:
        given = [(one.fold, _calibrated(one, head, selection)) for one in held_out]
        values = [
            np.mean(
                [_value(*own, of, setting) for own, of in zip(given, images, strict=True)]
            ).item()
            for setting in settings
        ]
        best = int(np.argmax(values))  # the first of equals
        chosen[head] = TransductionChoice(settings[best], values[best])
    return chosen


def _value(
    fold: ClassFold, scores: np.ndarray, images: ImageSet, setting: Mapping[str, Any]
) -> float:
    """Accuracy among held-out classes or, for a generalized fold, the harmonic mean."""
    unseen = np.isin(fold.candidates, fold.held_out)
    sizes = as_class_sizes(None, len(unseen))
    config = TransductionConfig(**setting)
    found = images.log_posteriors(as_scores(scores), sizes, unseen.astype(np.int64), config)
    labels, predictions = fold.labels[fold.test], fold.candidates[found.argmax(dim=1).numpy()]
    rows = np.isin(labels, fold.held_out)
    accuracy = mean_class_accuracy(labels[rows], predictions[rows])
    if not fold.generalized:
        return accuracy
    return harmonic_mean(mean_class_accuracy(labels[~rows], predictions[~rows]), accuracy)


def _images(fold: ClassFold, data: TrainingData) -> ImageSet:
    labelled = Labelled(data.features.take(fold.train), fold.labels[fold.train])
    return ImageSet(data.features.take(fold.test), labelled, fold.candidates)


def _calibrated(one: HeldOutScores, head: str, selection: Selection) -> np.ndarray:
    seen = ~np.isin(one.fold.candidates, one.fold.held_out)
    calibration = selection.calibration.get(head, 0.0) * one.units[head]
    return one.of(head, selection.weight) - calibration * seen
