"""What scores need before they answer: calibrations, an ensemble's weight, rejection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mcfa_fast.selection.folds import ClassFold, combine, fold_outcome
from mcfa_fast.selection.rejection import rejection_of
from mcfa_fast.selection.result import Selection

__all__ = ["HeldOutScores", "calibrate"]

_WEIGHTS = np.linspace(0, 1, 21)
_ENSEMBLE = "ensemble"


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """Uncalibrated scores of a fold's test rows, none of whose held-out classes was trained on.

    Attributes:
        fold: whose test rows and candidates.
        scores: per head [N, K].
        units: per head, what calibrations are multiples of.
        weighted: the ensemble's scores for a weight; None without an ensemble.
    """

    fold: ClassFold
    scores: Mapping[str, np.ndarray]
    units: Mapping[str, float]
    weighted: Callable[[float], np.ndarray] | None = None

    def of(self, head: str, weight: float | None) -> np.ndarray:
        """A head's scores [N, K], those of the ensemble for a weight."""
        if self.weighted is None or weight is None or head != _ENSEMBLE:
            return self.scores[head]
        return self.weighted(weight)


def calibrate(
    folds: Sequence[HeldOutScores],
    head: str,
    *,
    log_probabilities: Collection[str] = (),
    weight: float = 0.5,
) -> Selection:
    """Choose for all heads, on all folds together.

    For generalized folds, a head's calibration is that of the highest mean harmonic mean (see
    :func:`~mcfa_fast.evaluation.curve.best_calibration`). The ensemble's weight is that of the
    highest score, each weight being judged with its best calibration; of several equal ones the
    nearest to `weight` is taken.

    Args:
        folds: scores of every fold.
        head: which head answers; its score is the selection's.
        log_probabilities: heads whose scores are log-probabilities.
        weight: the ensemble's default weight.

    Raises:
        ValueError: when the scores of a head are not finite.
    """
    names = list(folds[0].scores)
    chosen_weight = None
    if _ENSEMBLE in names:
        order: list[float] = sorted(_WEIGHTS.tolist(), key=lambda value: abs(value - weight))
        # The first of equals.
        best = max(order, key=lambda value: _weighted_score(folds, value))
        chosen_weight = round(best, 10)
    scores = {
        name: [one.of(name, chosen_weight) for one in folds] for name in names
    }
    calibrations, values = {}, {}
    for name in names:
        units = [one.units[name] for one in folds]
        calibration, value = _judge(folds, scores[name], units)
        if value < 0:
            raise ValueError(f"{name}: its scores are not finite on a fold of the seen classes")
        values[name] = value
        if calibration is not None:
            calibrations[name] = calibration
    return Selection(
        score=values[head],
        held_out=tuple(len(one.fold.held_out) for one in folds),
        calibration=calibrations,
        weight=chosen_weight,
        rejection={
            name: rejection_of(
                scores[name],
                [one.fold.labels[one.fold.test] for one in folds],
                [one.fold.candidates for one in folds],
                [_offset(one, name, calibrations.get(name, 0.0)) for one in folds],
                log_probabilities=name in log_probabilities,
            )
            for name in names
        },
    )


def _judge(
    folds: Sequence[HeldOutScores], scores: Sequence[np.ndarray], units: Sequence[float]
) -> tuple[float | None, float]:
    return combine(
        [
            fold_outcome(values / unit, one.fold)
            for one, values, unit in zip(folds, scores, units, strict=True)
        ]
    )


def _weighted_score(folds: Sequence[HeldOutScores], weight: float) -> float:
    units = [one.units[_ENSEMBLE] for one in folds]
    return _judge(folds, [one.of(_ENSEMBLE, weight) for one in folds], units)[1]


def _offset(one: HeldOutScores, head: str, calibration: float) -> np.ndarray:
    seen = ~np.isin(one.fold.candidates, one.fold.held_out)
    return calibration * one.units[head] * seen.astype(np.float64)
