"""The softmax and the nearest-class head, combined."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.classifiers.heads.base import ClassTable, Head, Monitor
from mcfa_fast.classifiers.heads.nearest import NearestHead
from mcfa_fast.classifiers.heads.softmax import SoftmaxHead
from mcfa_fast.systems.base import System
from mcfa_fast.systems.presets import Task
from mcfa_fast.training.config import Options

__all__ = ["EnsembleHead", "EnsembleOptions", "combine"]

_SPREAD_ROWS = 4096


class EnsembleOptions(Options):
    """Options of the ensemble."""

    weight: float = Field(
        0.5, ge=0, le=1, description="Share of the nearest class; selection may choose another."
    )


class EnsembleHead(Head):
    r"""Log-probabilities of a convex combination of both heads (:func:`combine`).

    Similarities are multiplied by a factor :math:`\kappa` that gives them the spread of
    log-probabilities: :math:`\kappa^2` is the ratio of their variances over the classes, each a
    mean over samples as the softmax is trained on.
    """

    name = "ensemble"
    needs = ("softmax", "nearest")
    gives_log_probabilities = True
    Options = EnsembleOptions
    options: EnsembleOptions

    def __init__(
        self, system: System, task: Task, options: EnsembleOptions, others: Mapping[str, Head]
    ) -> None:
        super().__init__(system, task, options, others)
        self._take_heads(others)

    def for_others(self, others: Mapping[str, Head]) -> EnsembleHead:
        copied = copy.copy(self)
        copied._take_heads(others)
        return copied

    def fit(self, table: ClassTable, monitor: Monitor | None = None) -> None:
        self._take_classes()
        generator = self.system.config.generator("ensemble")
        samples = self.softmax.samples(table, generator)
        samples = samples[:: max(1, len(samples) // _SPREAD_ROWS)]
        cosines, _ = self.nearest.index.scores(self.nearest.whiten(samples))
        log_probabilities = self.softmax.log_probabilities(samples)
        ratio = float((_spread(log_probabilities) / _spread(cosines[:, self._columns])).sqrt())
        # One class alone, or classes of one embedding, have no spread.
        self.sharpness = ratio if 0 < ratio < float("inf") else 1.0

    def scores(self, features: Tensor) -> Tensor:
        return self.combined(*self.parts(features), self.options.weight)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and similarities [N, K] of raw features [N, F]."""
        embeddings = self.system.embed(features)
        similarities = self.nearest.similarities(embeddings)[:, self._columns]
        return self.softmax.log_probabilities(embeddings), similarities

    def combined(self, log_probabilities: Tensor, similarities: Tensor, weight: float) -> Tensor:
        """The scores of these parts for a weight."""
        return combine(log_probabilities, self.sharpness * similarities, weight)

    @property
    def calibration_unit(self) -> float:
        return self.sharpness

    def state_dict(self) -> dict[str, Any]:
        return {"sharpness": self.sharpness}

    def load_state_dict(self, state: Mapping[str, Any], table: ClassTable) -> None:
        self._take_classes()
        self.sharpness = state["sharpness"]

    def _take_heads(self, others: Mapping[str, Head]) -> None:
        self.softmax = cast(SoftmaxHead, others["softmax"])
        self.nearest = cast(NearestHead, others["nearest"])

    def _take_classes(self) -> None:
        self.classes = self.softmax.classes
        self._columns = torch.searchsorted(self.nearest.classes, self.classes)


def combine(log_probabilities: Tensor, similarities: Tensor, weight: float) -> Tensor:
    r"""Log-probabilities :math:`\log p_c^{1-w} e^{w \kappa \cos_c} - \log Z` of the ensemble.

    A convex combination, normalised, of two log-probabilities (a logarithmic opinion pool): the
    softmax classifier's and those of a softmax over similarities at the temperature
    :math:`1 / \kappa`. With w = 0 it is the softmax classifier's.

    Args:
        log_probabilities: log p [N, K] of the softmax classifier.
        similarities: κ·cos [N, K], see :class:`EnsembleHead`.
        weight: share w of the nearest class, 0 (softmax alone) to 1 (nearest alone).

    Source:
        Genest and Zidek, "Combining probability distributions: a critique and an annotated
        bibliography", 1986, Section 3.
    """
    return F.log_softmax((1.0 - weight) * log_probabilities + weight * similarities, dim=1)


def _spread(scores: Tensor) -> Tensor:
    """Variance over the columns of scores [N, K], averaged over the rows."""
    return scores.var(dim=1, correction=0).mean()
