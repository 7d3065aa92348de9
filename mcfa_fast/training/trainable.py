"""What the training loop asks of a system."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Protocol

from torch import Tensor

from mcfa_fast.training.ranks import World
from mcfa_fast.training.update import Update

__all__ = ["Trainable"]


class Trainable(Protocol):
    """A system in training: its batches, its step, its state.

    Where several processes train together, each has the same batches and computes on its own share
    of their rows (:class:`~mcfa_fast.training.ranks.Share`); what is random is drawn for the whole
    batch.

    Attributes:
        losses: Names of what :meth:`step` returns, "total" first.
    """

    losses: tuple[str, ...]

    def epoch(self, number: int, world: World) -> Iterable[Sized]:
        """The batches of an epoch, counted from 1; the length of each is its number of rows, those
        of this rank alone."""

    def step(self, batch: Any, update: Update) -> Tensor:
        """Update the weights from a batch, by calling ``update`` once or several times.

        Returns:
            The losses [len(losses)] before the update, as sums over the batch's rows; those of all
            ranks add up to the batch's. Nothing waits for the device.
        """

    def eval(self) -> None:
        """Prepare for use between epochs and after the last one."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and generators: all that further epochs depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, bitwise."""
