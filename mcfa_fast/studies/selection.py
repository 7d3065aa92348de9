"""Choosing hyperparameters and the calibration on the training rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from mcfa_fast.baselines.base import Baseline
from mcfa_fast.data.folds import ClassFold
from mcfa_fast.evaluation.folds import FoldOutcome, combine, fold_outcome
from mcfa_fast.studies.folds import FOLDS, selection_folds

__all__ = ["Selection", "select"]


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        parameters: the chosen setting of the grid.
        calibration: for task "gzsl", the calibration chosen with it; None otherwise.
        score: mean over the folds, in 0..1: the accuracy among held-out classes, or for "gzsl" the
            harmonic mean with that calibration.
        scores: the score of every setting of the grid.
    """

    parameters: Mapping[str, Any]
    calibration: float | None
    score: float
    scores: tuple[float, ...]


def select(
    baseline: Baseline,
    grid: Sequence[Mapping[str, Any]],
    features: np.ndarray,
    labels: np.ndarray,
    semantics: np.ndarray,
    *,
    seed: int = 0,
) -> Selection:
    """Cross-validation by classes, inside the seen classes.

    The seen classes are divided at random into three parts (see
    :func:`~mcfa_fast.data.folds.class_folds`); each part in turn plays the unseen classes, and the
    others are trained on. The setting with the highest mean per-class accuracy among the held-out
    classes wins, on average over the folds. For task "gzsl", a fifth of the rows of the other
    classes is held out as well, and setting and calibration are those of the highest harmonic mean.
    The first of equals is taken.

    Args:
        baseline: its parameters outside the grid count, its task above all; it is not changed.
        grid: settings to try, ordered as :meth:`~mcfa_fast.baselines.base.Baseline.fit_path` says.
        features: training rows [n, F].
        labels: class index [n] of every row.
        semantics: descriptors [C, A]; those of unseen classes are not looked at.
        seed: seed of the folds.

    Raises:
        ValueError: when there are too few seen classes, or no setting gives finite scores.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.baselines import Ridge
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> grid = [{"penalty": 0.1}, {"penalty": 10.0}]
        >>> chosen = select(Ridge(), grid, digits.features[rows], digits.labels[rows],
        ...     digits.semantics)
        >>> chosen.parameters in grid, chosen.score == max(chosen.scores)
        (True, True)
    """
    generalized = baseline.task == "gzsl"
    folds = selection_folds(labels, FOLDS, generalized=generalized, seed=seed)
    by_fold = [_outcomes(clone(baseline), grid, features, semantics, fold) for fold in folds]
    combined = [combine(outcomes) for outcomes in zip(*by_fold, strict=True)]
    calibrations, scores = zip(*combined, strict=True)
    best = int(np.argmax(scores))
    if scores[best] < 0:
        raise ValueError(f"grid: no setting of {baseline.method} gave finite scores in every fold")
    return Selection(dict(grid[best]), calibrations[best], scores[best], scores)


def _outcomes(
    baseline: Baseline,
    grid: Sequence[Mapping[str, Any]],
    features: np.ndarray,
    semantics: np.ndarray,
    fold: ClassFold,
) -> list[FoldOutcome]:
    """Outcome of every setting on one fold."""
    path = baseline.score_path(
        features[fold.train],
        fold.labels[fold.train],
        semantics[fold.classes],
        grid,
        images=features[fold.test],
        candidates=fold.candidates,
    )
    return [fold_outcome(scores, fold) for scores in path]
