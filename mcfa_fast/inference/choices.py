"""What is chosen by the scores of held-out images: an ensemble's weight, rejection thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.evaluation.curve import seen_unseen_curve
from mcfa_fast.evaluation.metrics import mean_class_accuracy
from mcfa_fast.inference.heads import DEFAULT_WEIGHT, Method, combine

__all__ = ["HeldOutScores", "Rejection"]

_WEIGHTS = np.linspace(0, 1, 21)
_SHARES = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Rejection:
    """How high the best scores of held-out images are, by which images may be rejected.

    Attributes:
        known: the 0th to 100th percentile for images whose class is a candidate.
        unknown: the same for the same images when their class is taken away from the candidates.
    """

    known: tuple[float, ...]
    unknown: tuple[float, ...]

    def threshold(self, rate: float) -> float:
        """The score below which a share `rate` (0..1) of the images of known classes lies."""
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: expected a share in 0..1, got {rate}")
        return float(np.interp(rate, _SHARES, self.known))

    def detection(self, rate: float) -> float:
        """Share (0..1) of the images of unknown classes that this threshold rejects."""
        return float(np.interp(self.threshold(rate), self.unknown, _SHARES))


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """Scores of images of K candidate classes, none of which was trained on.

    Attributes:
        log_probabilities: of the softmax classifier [N, K].
        cosines: similarities to the class latents [N, K].
        sharpness: see :attr:`~mcfa_fast.inference.heads.ClassifierHeads.sharpness`.
        labels: class index [N] of every image.
        classes: class index [K] of every column, ascending.
        seen_classes: those with training images; for a generalized task both kinds are among the
            columns, otherwise only the others.
        generalized: which of the two it is.
    """

    log_probabilities: Tensor
    cosines: Tensor
    sharpness: float
    labels: np.ndarray
    classes: np.ndarray
    seen_classes: np.ndarray
    generalized: bool

    def of(self, method: Method, weight: float) -> Tensor:
        """Scores [N, K] of a method, as the classifier gives them."""
        if method == "softmax":
            return self.log_probabilities
        if method == "nearest":
            return self.cosines
        return combine(self.log_probabilities, self.sharpness * self.cosines, weight)

    def choose_weight(self) -> float:
        """The ensemble's weight of highest accuracy, or harmonic mean if generalized.

        Each weight is judged with the calibration that is best for it. Of several equal ones that
        nearest to the default is taken.
        """
        order = sorted(_WEIGHTS.tolist(), key=lambda weight: abs(weight - DEFAULT_WEIGHT))
        return round(max(order, key=self._quality), 10)  # the first of equals

    def calibration(self, method: Method, weight: float) -> float:
        """What to subtract from scores of seen classes for the highest harmonic mean."""
        scores = self.of(method, weight)
        curve = seen_unseen_curve(scores, self.labels, self.classes, self.seen_classes)
        return curve.best().calibration

    def rejection(self, method: Method, weight: float, calibration: float) -> Rejection:
        """Percentiles of the highest score, less the calibration for seen classes.

        An image's own class is taken away as if it were not known: log-probabilities are then those
        among the other classes.
        """
        if len(self.classes) < 2:
            raise ValueError(f"classes: expected 2 or more, got {len(self.classes)}")
        own = torch.from_numpy(self.classes == self.labels[:, None])
        offset = calibration * torch.from_numpy(np.isin(self.classes, self.seen_classes)).double()
        known = self.of(method, weight).double()
        unknown = known.masked_fill(own, -torch.inf)
        if method != "nearest":
            unknown = unknown.log_softmax(dim=1)
        return Rejection(
            _percentiles((known - offset).amax(dim=1)), _percentiles((unknown - offset).amax(dim=1))
        )

    def _quality(self, weight: float) -> float:
        scores = self.of("ensemble", weight)
        if self.generalized:
            curve = seen_unseen_curve(scores, self.labels, self.classes, self.seen_classes)
            return curve.best().harmonic
        return mean_class_accuracy(self.labels, self.classes[scores.argmax(dim=1).numpy()])


def _percentiles(scores: Tensor) -> tuple[float, ...]:
    return tuple(np.quantile(scores.numpy(), _SHARES).tolist())
