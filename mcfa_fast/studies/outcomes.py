"""How well a model does on folds of the seen classes: one fold's outcome, and several together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcfa_fast.config import MCFAConfig
from mcfa_fast.data.folds import ClassFold, class_folds
from mcfa_fast.evaluation.curve import SeenUnseenCurve, best_calibration, seen_unseen_curve
from mcfa_fast.evaluation.metrics import mean_class_accuracy

__all__ = ["FOLDS", "FoldOutcome", "combine", "fold_outcome", "fold_test", "selection_folds"]

FOLDS = 3

FoldOutcome = float | SeenUnseenCurve | None
"""On one fold: accuracy among held-out classes, or the curve of a generalized fold; None where
scores are not finite."""


def selection_folds(
    labels: np.ndarray, count: int, *, generalized: bool, seed: int
) -> list[ClassFold]:
    """The folds on which a run with this seed is judged, see
    :func:`~mcfa_fast.data.folds.class_folds`.

    Raises:
        ValueError: when there are too few seen classes.
    """
    generator = MCFAConfig(seed=seed).generator("class folds")
    return class_folds(labels, count, generalized=generalized, generator=generator)


def fold_test(fold: ClassFold, *, generalized: bool) -> tuple[np.ndarray, np.ndarray]:
    """Test rows of a fold, and the classes of the fold among which they are told apart."""
    rows = np.concatenate([fold.test_seen, fold.test_unseen])
    return rows, np.arange(len(fold.classes)) if generalized else fold.held_out


def fold_outcome(scores: np.ndarray, fold: ClassFold, *, generalized: bool) -> FoldOutcome:
    """What uncalibrated scores [N, K] of :func:`fold_test`'s rows and candidates are worth."""
    rows, candidates = fold_test(fold, generalized=generalized)
    if not np.isfinite(scores).all():
        return None
    labels = fold.labels[rows]
    if generalized:
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
        return best_calibration(outcomes)
    return None, float(np.mean(outcomes))
