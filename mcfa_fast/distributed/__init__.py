"""Losses of the global batch over the ranks of a ``torch.distributed`` process group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mcfa_fast.distributed import losses, pair_losses
from mcfa_fast.distributed.ranks import Members, RankError, Ranks
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from mcfa_fast.distributed.ranks import Given

__all__ = ["RankError", "Ranks", "clip", "contrastive", "info_nce", "nt_xent", "several"]


def several(group: Given | None) -> bool:
    """Whether a batch is shared by ranks; one rank alone is one process, bit by bit.

    Args:
        group: As a loss takes it.

    Example:
        >>> several(None)
        False
    """
    if group is None:
        return False
    return torch.compiler.is_compiling() or Members(group).size > 1


def contrastive(*arguments: Any) -> ContrastiveLossValues:
    """:func:`mcfa_fast.distributed.losses.contrastive`."""
    values: ContrastiveLossValues = _module(losses).contrastive(*arguments)
    return values


def info_nce(*arguments: Any) -> Tensor:
    """:func:`mcfa_fast.distributed.pair_losses.info_nce`."""
    loss: Tensor = _module(pair_losses).info_nce(*arguments)
    return loss


def clip(*arguments: Any) -> Tensor:
    """:func:`mcfa_fast.distributed.pair_losses.clip`."""
    loss: Tensor = _module(pair_losses).clip(*arguments)
    return loss


def nt_xent(*arguments: Any) -> Tensor:
    """:func:`mcfa_fast.distributed.pair_losses.nt_xent`."""
    loss: Tensor = _module(pair_losses).nt_xent(*arguments)
    return loss


def _module(eager: Any) -> Any:
    """Where ``torch.compile`` meets a loss, the module whose functions it leaves to Python."""
    if not torch.compiler.is_compiling():
        return eager
    from mcfa_fast.distributed import uncompiled

    return uncompiled
