"""Folds of the seen classes: each plays the unseen ones in turn, without any test row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from mcfa_fast.evaluation.curve import SeenUnseenCurve, best_calibration, seen_unseen_curve
from mcfa_fast.evaluation.metrics import mean_class_accuracy
from mcfa_fast.storage.random import random_stream

__all__ = [
    "ClassFold",
    "FoldOutcome",
    "class_folds",
    "combine",
    "fold_outcome",
    "hold_out",
    "selection_folds",
]

FoldOutcome = float | SeenUnseenCurve | None
"""On one fold: accuracy among held-out classes, or the curve of a generalized fold; None where
scores are not finite."""


@dataclass(frozen=True, eq=False)
class ClassFold:
    """The seen classes as a zero-shot problem of their own: some play the unseen ones.

    They are numbered 0..S-1 anew, so that nothing of the real unseen classes is used.

    Attributes:
        classes: int64 [S], own indices of the seen classes, ascending; class c of the fold is
            ``classes[c]``.
        held_out: int64, classes of the fold that have no training rows, ascending.
        labels: int64 [n], class of the fold of every row.
        train: training rows, all of the other classes.
        test_seen: test rows of the other classes; empty when not generalized.
        test_unseen: test rows, all those of the held-out classes.
    """

    classes: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test_seen: np.ndarray
    test_unseen: np.ndarray

    @property
    def generalized(self) -> bool:
        """Whether classes that are trained on are tested as well."""
        return len(self.test_seen) > 0

    @property
    def test(self) -> np.ndarray:
        """All test rows, those of the classes that are trained on first."""
        return np.concatenate([self.test_seen, self.test_unseen])

    @property
    def candidates(self) -> np.ndarray:
        """The classes of the fold among which its test rows are told apart, ascending."""
        return np.arange(len(self.classes)) if self.generalized else self.held_out


def hold_out(
    labels: np.ndarray, held_out: np.ndarray, *, generalized: bool, generator: torch.Generator
) -> ClassFold:
    """Hold some of the classes in `labels` out of training.

    Args:
        labels: class index [n] of every row.
        held_out: which classes, as positions in the ascending order of those that occur.
        generalized: hold out a random fifth of the rows of every other class, too. At least one
            row of a class stays for training, even if it has no other.
        generator: source of the random choice of rows.

    Raises:
        ValueError: when a generalized fold has no test row of a class that is trained on.

    Example:
        >>> fold = hold_out(
        ...     np.array([7, 7, 5, 9, 9]), np.array([1]), generalized=False,
        ...     generator=torch.Generator(),
        ... )
        >>> fold.classes[fold.held_out], fold.train, fold.test_unseen
        (array([7]), array([2, 3, 4]), array([0, 1]))
    """
    classes, local = np.unique(labels, return_inverse=True)
    unseen = np.isin(local, held_out)
    seen = np.zeros_like(unseen)
    if generalized:
        for label in np.setdiff1d(local, held_out):
            rows = np.flatnonzero(local == label)
            order = torch.randperm(len(rows), generator=generator).numpy()
            seen[rows[order[: max(1, round(len(rows) / 5))][: len(rows) - 1]]] = True
        if not seen.any():
            raise ValueError(
                "labels: validation for task 'gzsl' needs a second row of a class to test on"
            )
    return ClassFold(
        classes=classes,
        held_out=np.sort(held_out),
        labels=local,
        train=np.flatnonzero(~(unseen | seen)),
        test_seen=np.flatnonzero(seen),
        test_unseen=np.flatnonzero(unseen),
    )


def class_folds(
    labels: np.ndarray, count: int, *, generalized: bool, generator: torch.Generator
) -> list[ClassFold]:
    """Folds that hold out every class once: cross-validation by classes.

    The classes are shuffled and divided into `count` parts of sizes that differ by 1 at most. With
    fewer than 2·count classes there are fewer folds, because one held-out class alone is never
    mistaken for another.

    Raises:
        ValueError: when there are fewer than 4 classes.

    Example:
        >>> folds = class_folds(
        ...     np.arange(7), 3, generalized=False, generator=torch.Generator().manual_seed(0)
        ... )
        >>> [fold.held_out.tolist() for fold in folds]
        [[0, 4, 5], [2, 3], [1, 6]]
    """
    classes = len(np.unique(labels))
    if classes < 4:
        raise ValueError(
            f"labels: expected 4 or more seen classes, to hold out two at a time, got {classes}"
        )
    order = torch.randperm(classes, generator=generator).numpy()
    return [
        hold_out(labels, part, generalized=generalized, generator=generator)
        for part in np.array_split(order, min(count, classes // 2))
    ]


def selection_folds(
    labels: np.ndarray, count: int, *, generalized: bool, seed: int
) -> list[ClassFold]:
    """The folds on which every system with this seed is judged, see :func:`class_folds`.

    Raises:
        ValueError: when there are too few seen classes.
    """
    generator = random_stream(seed, "class folds")
    return class_folds(labels, count, generalized=generalized, generator=generator)


def fold_outcome(scores: np.ndarray | None, fold: ClassFold) -> FoldOutcome:
    """What uncalibrated scores [N, K] of a fold's test rows and candidates are worth."""
    if scores is None or not np.isfinite(scores).all():
        return None
    labels, candidates = fold.labels[fold.test], fold.candidates
    if fold.generalized:
        seen = np.setdiff1d(candidates, fold.held_out)
        return seen_unseen_curve(scores, labels, candidates, seen)
    return mean_class_accuracy(labels, candidates[scores.argmax(axis=1)])


def combine(outcomes: Sequence[FoldOutcome]) -> tuple[float | None, float]:
    """Calibration and score of one setting from its outcomes on several folds.

    The score is the mean accuracy (no calibration), or the highest mean harmonic mean that one
    calibration reaches on all curves; -1 when an outcome is None.

    Example:
        >>> combine([0.5, 0.7])
        (None, 0.6)
    """
    if any(outcome is None for outcome in outcomes):
        return None, -1.0
    if isinstance(outcomes[0], SeenUnseenCurve):
        return best_calibration(cast("Sequence[SeenUnseenCurve]", outcomes))
    return None, float(np.mean(cast("Sequence[float]", outcomes)))
