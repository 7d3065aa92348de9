"""The dataset of the tests of experiments; splits by row, so that test labels may be anything."""

from __future__ import annotations

import dataclasses

import numpy as np
from zero_shot_data import NEW, SEEN, UNSEEN, make_images, make_semantics

from mcfa_fast.data import Dataset, Split
from mcfa_fast.data.splits import Rows, RowSplits
from mcfa_fast.storage import read_checkpoint

CLASSES, NAMES, SPLIT = np.arange(NEW), tuple("abcdefghijkl"), "10/2:0"


def make_dataset() -> Dataset:
    """24 rows per class; of a generalized split, the last 8 of a seen class are test rows."""
    features, labels = make_images(CLASSES, rows=24)
    rows = np.arange(len(labels))
    seen, early = np.isin(labels, SEEN), rows % 24 < 16
    splits = RowSplits(
        zsl={SPLIT: Rows(rows[seen], rows[~seen])},
        gzsl={SPLIT: Rows(rows[seen & early], rows[~seen], rows[seen & ~early])},
    )
    return Dataset("small", features, labels, NAMES, make_semantics()[:NEW], splits)


DATASET = make_dataset()


def split_of(task: str) -> Split:
    """The split for a task."""
    return DATASET.split(SPLIT, generalized=task == "gzsl")


def garbled(task: str) -> Dataset:
    """Garbage in the place of all test labels, and of the test images."""
    rng = np.random.default_rng(0)
    labels, features = DATASET.labels.copy(), DATASET.features.copy()
    split = split_of(task)
    for rows, classes in ((split.test_seen, SEEN), (split.test_unseen, UNSEEN)):
        labels[rows] = rng.choice(classes, size=len(rows))
        features[rows] = 100 * rng.normal(size=(len(rows), features.shape[1]))
    return dataclasses.replace(DATASET, labels=labels, features=features)


def learned(folder) -> dict:
    """All tensors of the classifier in a run's folder, by their place in the file."""
    found = {}

    def visit(path, value):
        if isinstance(value, dict):
            for key, part in value.items():
                visit(f"{path}.{key}", part)
        elif hasattr(value, "dtype"):
            found[path] = value

    state = read_checkpoint(folder / "classifier.pt")
    visit("system", state["system"])
    visit("heads", state["heads"])
    return found
