"""Rows of every rank, as the libraries gather them: with or without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gathered", "world_size"]


def world_size() -> int:
    """Ranks of the default process group; 1 without one."""
    distributed = torch.distributed
    started = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if started else 1


def gathered(rows: Tensor, *, with_grad: bool, own: int | None = None) -> Tensor:
    """Rows ``[N, D]`` of all ranks below each other ``[ranks · N, D]``.

    Args:
        rows: of this rank, as many on each.
        with_grad: Send gradients back to the ranks that the rows came from, where they are summed.
        own: Without that, the rank whose rows keep a gradient, this one's; None for none.
    """
    if with_grad:
        from torch.distributed.nn.functional import all_gather

        return torch.cat(tuple(all_gather(rows)))
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    torch.distributed.all_gather(parts, rows.detach().contiguous())
    if own is not None:
        parts[own] = rows
    return torch.cat(parts)
