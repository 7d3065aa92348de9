"""Scores below which an image is taken for none of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Rejection", "rejection_of"]

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


def rejection_of(
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    offsets: Sequence[np.ndarray],
    *,
    log_probabilities: bool,
) -> Rejection:
    """Percentiles of the highest score, less the offset of its class, over several folds.

    An image's own class is taken away as if it were not known: log-probabilities are then those
    among the other classes.

    Args:
        scores: of each fold [N, K], uncalibrated.
        labels: class [N] of every row.
        candidates: class [K] of every column, two or more.
        offsets: what to subtract from every column [K].
        log_probabilities: whether the scores are.
    """
    best_known, best_unknown = [], []
    for values, own, classes, offset in zip(scores, labels, candidates, offsets, strict=True):
        if len(classes) < 2:
            raise ValueError(f"classes: expected 2 or more, got {len(classes)}")
        known = torch.from_numpy(values).double()
        unknown = known.masked_fill(torch.from_numpy(classes == own[:, None]), -torch.inf)
        if log_probabilities:
            unknown = unknown.log_softmax(dim=1)
        shift = torch.from_numpy(offset)
        best_known.append((known - shift).amax(dim=1))
        best_unknown.append((unknown - shift).amax(dim=1))
    return Rejection(_percentiles(best_known), _percentiles(best_unknown))


def _percentiles(scores: Sequence[torch.Tensor]) -> tuple[float, ...]:
    return tuple(np.quantile(torch.cat(list(scores)).numpy(), _SHARES).tolist())
