"""The moment between gradients and the optimizer's step."""

from __future__ import annotations

from torch.optim import Optimizer

__all__ = ["Update"]


class Update:
    """Steps a system's optimizers, which it does only through here.

    Gradients are in place when :meth:`apply` is called and the weights are not yet changed: where
    several processes train together, theirs are combined here. A system with several players, as
    an adversarial one, calls it once for each player's step.
    """

    def apply(self, optimizer: Optimizer) -> None:
        """One step of the optimizer from the gradients of its parameters."""
        optimizer.step()
