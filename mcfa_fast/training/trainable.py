"""What the training loop asks of a system."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Protocol

from torch import Tensor

from mcfa_fast.training.update import Update

__all__ = ["Trainable"]


class Trainable(Protocol):
    """A system in training: its batches, its step, its state.

    Attributes:
        losses: Names of what :meth:`step` returns, "total" first.
    """

    losses: tuple[str, ...]

    def epoch(self, number: int) -> Iterable[Sized]:
        """The batches of an epoch, counted from 1; the length of each is its number of rows."""

    def step(self, batch: Any, update: Update) -> Tensor:
        """Update the weights from a batch, by calling ``update`` once or several times.

        Returns:
            The losses [len(losses)] before the update, as sums over the batch's rows. Nothing
            waits for the device.
        """

    def eval(self) -> None:
        """Prepare for use between epochs and after the last one."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and generators: all that further epochs depend on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, bitwise."""
