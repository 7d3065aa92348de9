"""Systems over prepared features: unit rows, centred on the training mean; unit descriptors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System

__all__ = ["ClosedForm", "PreparedData", "unit_rows"]


class PreparedData(NamedTuple):
    """Prepared training rows of the S seen classes, numbered 0..S-1 anew.

    Attributes:
        features: [n, F], unit rows centred on their mean, of the system's `dtype`.
        labels: int64 [n] in 0..S-1.
        semantics: [S, A] descriptor of every seen class.
        unseen_semantics: [U, A] descriptor of every unseen class, for systems that make training
            data for them.
    """

    features: np.ndarray
    labels: np.ndarray
    semantics: np.ndarray
    unseen_semantics: np.ndarray


class ClosedForm(System):
    """A system that is solved, not trained by batches, and scores classes itself.

    A subclass names its learned arrays in `learned` and implements :meth:`fit_prepared` and
    :meth:`score_prepared`. Where a part of the work does not depend on its options, it belongs into
    :meth:`statistics`, which is done once for a whole grid.
    """

    dtype: ClassVar[type[np.floating]] = np.float64
    """Floating type of all arrays that a subclass gets."""
    unit_semantics: ClassVar[bool] = True
    """Whether descriptors are given unit rows; False for those that need the values themselves."""
    learned: ClassVar[tuple[str, ...]]
    """Names of the attributes, arrays all of them, that hold what was learned."""

    mean_: np.ndarray
    """Mean [F] of the training rows after their normalisation."""

    def prepare(self, data: TrainingData) -> Any:
        prepared = unit_rows(data.features.array(self.dtype))
        self.mean_ = prepared.mean(axis=0, dtype=np.float64).astype(self.dtype)
        prepared -= self.mean_
        seen = data.seen_classes
        semantics = self._semantics(data.semantics)
        local = np.searchsorted(seen, data.labels)
        return self.mean_, self.statistics(
            PreparedData(prepared, local, semantics[seen], semantics[data.unseen_classes])
        )

    def solve(self, prepared: Any) -> None:
        self.mean_, statistics = prepared
        self.fit_prepared(statistics)

    def statistics(self, data: PreparedData) -> Any:
        """What :meth:`fit_prepared` is given: `data`, or statistics of it that need no option."""
        return data

    @abstractmethod
    def fit_prepared(self, data: Any) -> None:
        """Learn from what :meth:`statistics` returned, with the present options.

        It may be called again with the same object after options have changed.
        """

    @abstractmethod
    def score_prepared(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Scores [N, K] of prepared features `x` [N, F] for descriptors `s` [K, A]."""

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        rows = unit_rows(features.cpu().numpy().astype(self.dtype)) - self.mean_
        return torch.from_numpy(self.score_prepared(rows, self._semantics(semantics)))

    def state_dict(self) -> Mapping[str, Tensor]:
        names = ("mean_", *self.learned)
        return {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name in ("mean_", *self.learned):
            setattr(self, name, state[name].cpu().numpy())

    def _semantics(self, semantics: Tensor) -> np.ndarray:
        table = semantics.cpu().numpy().astype(self.dtype)
        return unit_rows(table) if self.unit_semantics else table


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows [N, D] divided by their Euclidean norms; a row of zeros stays one.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)
