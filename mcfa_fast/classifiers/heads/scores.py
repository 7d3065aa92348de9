"""The head of systems that score classes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mcfa_fast.classifiers.heads.base import ClassTable, Head, Monitor

__all__ = ["ScoresHead"]


class ScoresHead(Head):
    """The system's own scores of every class (:class:`~mcfa_fast.systems.base.Scores`)."""

    name = "scores"

    def fit(self, table: ClassTable, monitor: Monitor | None = None) -> None:
        self.classes = table.all
        self._semantics = table.semantics[self.classes]

    def scores(self, features: Tensor) -> Tensor:
        return self.system.scores(features, self._semantics)

    def load_state_dict(self, state: Mapping[str, Any], table: ClassTable) -> None:
        self.fit(table)
