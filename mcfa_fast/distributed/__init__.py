"""Losses of the global batch over the ranks of a ``torch.distributed`` process group."""

from __future__ import annotations

from typing import Any

import torch

from mcfa_fast.distributed import losses
from mcfa_fast.distributed.ranks import RankError, Ranks
from mcfa_fast.ops import ContrastiveLossValues

__all__ = ["RankError", "Ranks", "contrastive"]


def contrastive(*args: Any) -> ContrastiveLossValues:
    """:func:`mcfa_fast.distributed.losses.contrastive`, which ``torch.compile`` may meet."""
    if torch.compiler.is_compiling():
        from mcfa_fast.distributed import uncompiled

        return uncompiled.contrastive(*args)
    return losses.contrastive(*args)
