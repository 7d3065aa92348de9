"""Choosing one of several settings on folds of the seen classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcfa_fast.selection.folds import ClassFold, FoldOutcome, combine, fold_outcome

__all__ = ["Choice", "ScorePath", "choose"]

ScorePath = Callable[[ClassFold], Iterable["np.ndarray | None"]]
"""Trains on a fold's training rows with one setting after the other, and gives the uncalibrated
scores [N, K] of its test rows for its candidates; None where the training diverged."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        setting: the chosen one.
        score: mean over the folds, in 0..1: the accuracy among held-out classes, or for generalized
            folds the harmonic mean with the calibration that is best for all of them.
        scores: the score of every setting; -1 where it gave no finite scores.
    """

    setting: Mapping[str, Any]
    score: float
    scores: tuple[float, ...]


def choose(
    settings: Sequence[Mapping[str, Any]], folds: Sequence[ClassFold], score_path: ScorePath
) -> Choice:
    """The setting of the highest score over all folds; of equals, the first.

    Args:
        settings: one or more.
        folds: of the seen classes.
        score_path: gives scores in the order of the settings.

    Raises:
        ValueError: when no setting gives finite scores in every fold.

    Example:
        >>> labels = np.repeat(np.arange(4), 2)
        >>> folds = [ClassFold(np.arange(4), np.array([0, 1]), labels, np.arange(4, 8),
        ...     np.empty(0, int), np.arange(4))]
        >>> right = np.repeat(np.eye(2), 2, axis=0)
        >>> choose([{"a": 1}, {"a": 2}], folds, lambda fold: [-right, right]).setting
        {'a': 2}
    """
    by_fold: list[list[FoldOutcome]] = [
        [fold_outcome(scores, fold) for scores in score_path(fold)] for fold in folds
    ]
    scores = tuple(combine(outcomes)[1] for outcomes in zip(*by_fold, strict=True))
    best = int(np.argmax(scores))
    if scores[best] < 0:
        raise ValueError("grid: no setting gave finite scores in every fold")
    return Choice(dict(settings[best]), scores[best], scores)
