"""The moment between gradients and the optimizer's step, at which ranks meet."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from mcfa_fast.training.ranks import World

__all__ = ["Update"]


class Update:
    """Steps a system's optimizers, which it does only through here.

    Gradients are in place when :meth:`apply` is called and the weights are not yet changed: where
    several processes train together, theirs are added up here, so that all of them take the same
    step. A system with several players, as an adversarial one, calls it once for each player's
    step.

    Args:
        group: The processes that train together; None is this one alone.

    Attributes:
        world: Who they are.

    Example:
        >>> weight = torch.ones(1, requires_grad=True)
        >>> weight.grad = torch.ones(1)
        >>> Update().apply(torch.optim.SGD([weight], lr=0.25))
        >>> weight.item()
        0.75
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.world = World(group)
        self._trained: dict[int, list[Tensor]] = {}

    def apply(self, optimizer: Optimizer) -> None:
        """One step of the optimizer from the gradients of its parameters, summed over the ranks.

        Which parameters have gradients is settled by an optimizer's first step, on any rank; where
        a rank lacks one of them, it counts as 0.
        """
        if self.world.group is not None:
            self._add_up(optimizer)
        optimizer.step()

    def _add_up(self, optimizer: Optimizer) -> None:
        parameters = self._trained.get(id(optimizer))
        if parameters is None:
            parameters = self._trained[id(optimizer)] = self._with_gradients(optimizer)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for gradient in gradients:
            kinds.setdefault((gradient.dtype, gradient.device), []).append(gradient)
        for parts in kinds.values():  # of nearly every system, one
            bucket = self.world.sum(torch.cat([part.reshape(-1) for part in parts]))
            sums = bucket.split([part.numel() for part in parts])
            torch._foreach_copy_(
                parts, [s.view_as(part) for s, part in zip(sums, parts, strict=True)]
            )

    def _with_gradients(self, optimizer: Optimizer) -> list[Tensor]:
        """The parameters that have a gradient on any rank."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not parameters:
            return []
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        found = self.world.highest(has.to(parameters[0].device)).tolist()
        return [p for p, is_there in zip(parameters, found, strict=True) if is_there]
