"""The seen-unseen curve: both accuracies of generalized zero-shot classification at every bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mcfa_fast.evaluation.metrics import harmonic_mean

__all__ = ["OperatingPoint", "SeenUnseenCurve", "best_calibration", "seen_unseen_curve"]


class OperatingPoint(NamedTuple):
    """Accuracies, all in 0..1, at one calibration (in units of the scores)."""

    calibration: float
    seen: float
    unseen: float
    harmonic: float


@dataclass(frozen=True, eq=False)
class SeenUnseenCurve:
    """Seen and unseen accuracy as step functions of the calibration.

    Between two neighbouring breakpoints no prediction that counts changes, so the arrays describe
    the curve at every calibration, not at a sample of them.

    Attributes:
        breakpoints: calibrations [B] at which an accuracy changes, ascending, distinct.
        seen: mean per-class accuracy [B + 1] on rows of seen classes; entry b holds for
            calibrations from ``breakpoints[b - 1]`` on and below ``breakpoints[b]``.
        unseen: the same on rows of unseen classes.
    """

    breakpoints: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    def at(self, calibration: float) -> OperatingPoint:
        """The accuracies at one calibration; an exact tie goes to the unseen class."""
        step = int(np.searchsorted(self.breakpoints, calibration, side="right"))
        seen, unseen = float(self.seen[step]), float(self.unseen[step])
        return OperatingPoint(float(calibration), seen, unseen, harmonic_mean(seen, unseen))

    def best(self) -> OperatingPoint:
        """The point of highest harmonic mean.

        Its calibration is the middle of the interval that reaches it (the lowest such interval).
        When the harmonic mean is 0 everywhere, it is the point at calibration 0.
        """
        harmonic = self.harmonic
        step = int(harmonic.argmax())
        if harmonic[step] == 0:
            return self.at(0.0)
        # U is 0 in the first interval and S in the last, so this one has two ends.
        calibration = float(self.breakpoints[step - 1 : step + 1].mean())
        seen, unseen = float(self.seen[step]), float(self.unseen[step])
        return OperatingPoint(calibration, seen, unseen, harmonic_mean(seen, unseen))

    @property
    def harmonic(self) -> np.ndarray:
        """Harmonic mean of both accuracies [B + 1], in the same intervals."""
        total = self.seen + self.unseen
        return 2 * self.seen * self.unseen / np.where(total > 0, total, 1)

    @property
    def area(self) -> float:
        """Area under the curve of seen (vertical) over unseen accuracy (AUSUC), in 0..1."""
        area = np.sum(np.diff(self.unseen) * (self.seen[1:] + self.seen[:-1])) / 2
        return min(float(area), 1.0)  # not above by rounding


def best_calibration(curves: Sequence[SeenUnseenCurve]) -> tuple[float, float]:
    """The calibration of highest harmonic mean on average over several curves, and that mean.

    All breakpoints of all curves together bound the intervals that are compared; as in
    :meth:`SeenUnseenCurve.best`, it is the middle of the (lowest) best interval, or 0 when the
    harmonic mean is 0 everywhere.

    Example:
        Only calibrations from 2 to 3 are right for both curves.

        >>> low = SeenUnseenCurve(np.array([1.0, 3.0]), np.array([1, 1, 0]), np.array([0, 1, 1]))
        >>> high = SeenUnseenCurve(np.array([2.0, 9.0]), np.array([1, 1, 0]), np.array([0, 1, 1]))
        >>> best_calibration([low, high])
        (2.5, 1.0)
    """
    breakpoints = np.unique(np.concatenate([curve.breakpoints for curve in curves]))
    harmonic = np.zeros(len(breakpoints) + 1)
    for curve in curves:
        steps = np.searchsorted(curve.breakpoints, breakpoints, side="right")
        harmonic += curve.harmonic[np.append(0, steps)] / len(curves)
    step = int(harmonic.argmax())
    if harmonic[step] == 0:
        return 0.0, 0.0
    return float(breakpoints[step - 1 : step + 1].mean()), float(harmonic[step])


def seen_unseen_curve(
    scores: ArrayLike, labels: ArrayLike, classes: ArrayLike, seen_classes: ArrayLike
) -> SeenUnseenCurve:
    """Sweep the calibration that is subtracted from the scores of seen classes, exactly.

    Calibrated stacking (Chao et al., "An empirical study and analysis of generalized zero-shot
    learning for object recognition in the wild", 2016, Eqs. 6 and 7) predicts
    ``argmax_c scores[c] - calibration * [c is seen]``. A row goes from its best seen to its best
    unseen class when the calibration reaches the gap between their two scores. Sorting the gaps
    therefore gives the whole curve in O(N·K + N·log N), without trying any calibration.

    Args:
        scores: uncalibrated scores [N, K], finite.
        labels: true class indices [N], each in `classes`; of seen and of unseen classes.
        classes: class index [K] of every column of `scores`.
        seen_classes: indices of the seen classes; both kinds must be among the columns.

    Raises:
        ValueError: on wrong shapes, scores that are not finite, labels outside `classes`, or when
            the seen or the unseen side has no column or no row.

    Example:
        Two rows of each class; only the third row is drawn to the wrong side without calibration.

        >>> scores = [[2.0, 0.0], [3.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        >>> curve = seen_unseen_curve(scores, [0, 0, 1, 1], classes=[0, 1], seen_classes=[0])
        >>> curve.at(0.0)
        OperatingPoint(calibration=0.0, seen=1.0, unseen=0.5, harmonic=0.6666666666666666)
        >>> curve.best()
        OperatingPoint(calibration=1.5, seen=1.0, unseen=1.0, harmonic=1.0)
        >>> curve.area
        1.0
    """
    scores = np.asarray(scores, dtype=np.float64)
    labels, classes = np.asarray(labels), np.asarray(classes)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or classes.shape != scores.shape[1:]:
        raise ValueError(
            "scores: expected [N, K] with labels [N] and classes [K], got "
            f"{scores.shape} with labels {labels.shape} and classes {classes.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores: expected finite values, got NaN or infinity")
    outside = np.setdiff1d(labels, classes)
    if outside.size:
        raise ValueError(f"labels: expected only classes in `classes`, got {outside[0]}")
    seen_column = np.isin(classes, seen_classes)
    seen_row = np.isin(labels, seen_classes)
    for name, flags in (("classes", seen_column), ("labels", seen_row)):
        if flags.all() or not flags.any():
            raise ValueError(f"{name}: expected both seen and unseen classes, got one kind only")

    best_seen, score_seen = _best(scores, classes, seen_column)
    best_unseen, score_unseen = _best(scores, classes, ~seen_column)
    gap = score_seen - score_unseen
    # Only rows that are right within their own kind ever count, and each counts on one side of its
    # gap: seen rows below it, unseen rows from it on.
    right = np.where(seen_row, best_seen, best_unseen) == labels
    weight = _row_weights(labels, seen_row)
    breakpoints, position = np.unique(gap[right], return_inverse=True)
    lost = np.bincount(position, weight[right] * seen_row[right], minlength=len(breakpoints))
    won = np.bincount(position, weight[right] * ~seen_row[right], minlength=len(breakpoints))
    # Sums of shares are above 1 by rounding where every row is right.
    return SeenUnseenCurve(
        breakpoints=breakpoints,
        seen=np.append(lost[::-1].cumsum()[::-1], 0.0).clip(max=1),
        unseen=np.append(0.0, won.cumsum()).clip(max=1),
    )


def _best(
    scores: np.ndarray, classes: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class and score of every row's highest entry among the chosen columns."""
    chosen = scores[:, columns]
    highest = chosen.argmax(axis=1)
    return classes[columns][highest], np.take_along_axis(chosen, highest[:, None], axis=1)[:, 0]


def _row_weights(labels: np.ndarray, seen_row: np.ndarray) -> np.ndarray:
    """Share of every row in the mean per-class accuracy of its kind."""
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    present_seen = len(np.unique(labels[seen_row]))
    present = np.where(seen_row, present_seen, len(counts) - present_seen)
    return 1.0 / (counts[position] * present)
