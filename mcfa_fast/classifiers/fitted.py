"""A trained system with its heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.heads import HEADS, ClassTable, Head
from mcfa_fast.classifiers.heads.base import Monitor
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System

__all__ = ["Fitted", "fit_heads", "make_heads"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What does not change any more: new classes make a new one.

    Attributes:
        system: trained.
        table: the classes.
        heads: fitted to them, by name.
    """

    system: System
    table: ClassTable
    heads: Mapping[str, Head]

    def with_classes(self, semantics: Tensor) -> Fitted:
        """The same with more unseen classes, by their raw descriptors [M, A]."""
        table = self.table.add(semantics)
        heads: dict[str, Head] = {}
        for name, head in self.heads.items():
            heads[name] = head.for_others(heads)
            heads[name].fit(table)
        return Fitted(self.system, table, heads)


def make_heads(run: RunConfig, system: System, only: str | None = None) -> dict[str, Head]:
    """The heads of a run over a trained system, not yet fitted.

    Args:
        run: names them, with their options.
        system: trained.
        only: leave out the heads that this one does not need.
    """
    heads: dict[str, Head] = {}
    for name, kind in HEADS.items():
        if name in run.heads and (only is None or name in (only, *HEADS[only].needs)):
            heads[name] = kind(system, run.task, run.heads[name], heads)
    return heads


def fit_heads(
    run: RunConfig,
    system: System,
    data: TrainingData,
    monitor: Monitor | None = None,
    *,
    only: str | None = None,
) -> Fitted:
    """Fit the heads of a run over a trained system.

    Args:
        run, system, only: see :func:`make_heads`.
        data: the images that the system was trained on.
        monitor: see :meth:`~mcfa_fast.classifiers.heads.base.Head.fit`; of the softmax head.
    """
    table = ClassTable.of(data)
    heads = make_heads(run, system, only)
    for name, head in heads.items():
        head.observe(data)
        head.fit(table, monitor if name == "softmax" else None)
    return Fitted(system, table, heads)
