"""What a head is, and the classes that it tells apart."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System
from mcfa_fast.systems.presets import Task
from mcfa_fast.training.config import Options

__all__ = ["FAR", "ClassTable", "Head", "Monitor"]

FAR = 100.0
"""How many times as large as in training the values of a descriptor are that cannot be meant."""

Monitor = Callable[[int, "Head"], float]


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Descriptors of all classes, and which of them have training images.

    Attributes:
        semantics: raw descriptors [C, A]; a class is a row of it.
        seen: ascending indices of the classes that have training images.
        unseen: ascending indices of the classes that are known by descriptor only.
    """

    semantics: Tensor
    seen: Tensor
    unseen: Tensor

    @classmethod
    def of(cls, data: TrainingData) -> ClassTable:
        """The classes of training data."""
        seen, unseen = (torch.from_numpy(c) for c in (data.seen_classes, data.unseen_classes))
        return cls(data.semantics, seen, unseen)

    @property
    def all(self) -> Tensor:
        """Ascending indices of all classes."""
        return torch.cat([self.seen, self.unseen]).sort().values

    @property
    def sizes(self) -> Tensor:
        """The largest absolute value [C] of each descriptor, in units of that of training; 0 where
        the latter is 0."""
        sizes = self.semantics.abs().amax(dim=1)
        usual = sizes[self.seen].max()
        return sizes / usual if usual > 0 else torch.zeros_like(sizes)

    def add(self, semantics: Tensor) -> ClassTable:
        """The table with more unseen classes, by their raw descriptors [M, A]."""
        added = torch.arange(len(semantics)) + len(self.semantics)
        table = torch.cat([self.semantics, semantics])
        return ClassTable(table, self.seen, torch.cat([self.unseen, added]))


class Head(ABC):
    """Finds the classes of images with a trained system, in main memory.

    A head is fitted in two moments: it takes what it needs of the training images once
    (:meth:`observe`), and is fitted to a table of classes (:meth:`fit`), anew when classes are
    added. After that nothing in it changes, so that threads may share it.

    Args:
        system: Trained.
        task: Whether seen classes are candidates, too.
        options: Of its class ``Options``.
        others: The heads that were made before it, by name.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    needs: ClassVar[tuple[str, ...]] = ()
    """Names of the heads that it builds on."""
    gives_log_probabilities: ClassVar[bool] = False
    """Whether its scores are log-probabilities."""
    classes: Tensor
    """Ascending indices [K] of the classes it knows, the columns of its scores."""

    def __init__(
        self, system: System, task: Task, options: Any, others: Mapping[str, Head]
    ) -> None:
        self.system: Any = system  # the registry vouches for what a head needs of it
        self.task = task
        self.options = options

    @classmethod  # noqa: B027 (most suit any task)
    def check(cls, options: Any, task: Task) -> None:
        """Raise a ValueError where the options do not suit the task."""

    def for_others(self, others: Mapping[str, Head]) -> Head:
        """A copy that can be fitted anew and builds on other heads than this one."""
        return copy.copy(self)

    def observe(self, data: TrainingData) -> None:  # noqa: B027 (most heads need nothing of them)
        """Take what later fits need of the training images."""

    @abstractmethod
    def fit(self, table: ClassTable, monitor: Monitor | None = None) -> None:
        """Fit to the classes.

        Args:
            table: All classes.
            monitor: Called as ``monitor(epoch, head)`` after each epoch of a head that is trained,
                counted from 1, with the head of that epoch; the epoch of highest value is kept.
                None keeps the last.
        """

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Uncalibrated scores [N, K] of raw features [N, F]; higher is better."""

    @property
    def calibration_unit(self) -> float:
        """What calibrations are multiples of, so that they fit other models as well."""
        return 1.0

    @property
    def probability_scale(self) -> float:
        """The factor by which the softmax of scores gives probabilities."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs, as tensors and plain containers."""
        return {}

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any], table: ClassTable) -> None:
        """Be as the head was that gave the state; nothing is trained."""
