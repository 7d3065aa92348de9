"""How well a model does on folds of the seen classes: one fold's outcome, and several together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcfa_fast.data.folds import ClassFold
from mcfa_fast.evaluation.curve import SeenUnseenCurve, best_calibration, seen_unseen_curve
from mcfa_fast.evaluation.metrics import mean_class_accuracy

__all__ = ["FoldOutcome", "combine", "fold_outcome"]

FoldOutcome = float | SeenUnseenCurve | None
"""On one fold: accuracy among held-out classes, or the curve of a generalized fold; None where
scores are not finite."""


def fold_outcome(scores: np.ndarray, fold: ClassFold) -> FoldOutcome:
    """What uncalibrated scores [N, K] of a fold's test rows and candidates are worth."""
    if not np.isfinite(scores).all():
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
        return best_calibration(outcomes)
    return None, float(np.mean(outcomes))
