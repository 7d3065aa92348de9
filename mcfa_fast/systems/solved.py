"""Systems that are solved, in closed form or by a solver, instead of trained by batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.layers import unit_rows
from mcfa_fast.systems.prepared import PreparedSystem

__all__ = ["PreparedData", "SolvedSystem"]


class PreparedData(NamedTuple):
    """Prepared training rows of the S seen classes, numbered 0..S-1 anew.

    Attributes:
        features: [n, F], unit rows centred on their mean, of the system's `dtype`.
        labels: int64 [n] in 0..S-1.
        semantics: [S, A] descriptor of every seen class.
    """

    features: np.ndarray
    labels: np.ndarray
    semantics: np.ndarray


class SolvedSystem(PreparedSystem):
    """A system over prepared features that is solved at once; it computes in main memory.

    A subclass names its learned arrays in `learned` and implements :meth:`fit_prepared` and
    :meth:`score_layers`. Where a part of the work does not depend on its options, it belongs into
    :meth:`statistics`, which is done once for a whole grid.
    """

    dtype = np.float64
    learned: ClassVar[tuple[str, ...]]
    """Names of the attributes, arrays all of them, that hold what was learned."""

    def prepare(self, data: TrainingData) -> Any:
        features = data.features.map(
            lambda chunk: torch.from_numpy(unit_rows(chunk.numpy().astype(self.dtype)))
        ).numpy()
        mean = features.mean(axis=0, dtype=np.float64).astype(self.dtype)
        features -= mean
        seen = data.seen_classes
        semantics = self.prepared_semantics(data.semantics[torch.from_numpy(seen)])
        local = np.searchsorted(seen, data.labels)
        return mean, self.statistics(PreparedData(features, local, semantics))

    def solve(self, prepared: Any) -> None:
        mean, statistics = prepared
        self.scaler.offset.copy_(torch.from_numpy(mean))
        self.fit_prepared(statistics)
        self.finish()

    def statistics(self, data: PreparedData) -> Any:
        """What :meth:`fit_prepared` is given: `data`, or statistics of it that need no option."""
        return data

    @abstractmethod
    def fit_prepared(self, data: Any) -> None:
        """Learn from what :meth:`statistics` returned, with the present options.

        It may be called again with the same object after options have changed.
        """

    @abstractmethod
    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        """Layers in sequence, from prepared features to scores for descriptors `s` [K, A]."""

    def class_module(self, semantics: np.ndarray) -> nn.Module:
        return nn.Sequential(*self.score_layers(semantics))

    def learned_state(self) -> Mapping[str, Tensor]:
        return {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in self.learned}

    def load_learned(self, state: Mapping[str, Tensor]) -> None:
        for name in self.learned:
            setattr(self, name, state[name].cpu().numpy())
