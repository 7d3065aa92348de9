"""Exact gradients of large batches for encoders whose activations do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["in_chunks"]


def in_chunks(function: Callable[[Tensor], Any], rows: Tensor, chunk_size: int) -> Any:
    r"""``function(rows)`` computed a chunk of rows at a time, with the whole batch's gradients.

    A contrastive loss compares every row with every other, so the gradients of small batches do
    not add up to those of a large one. Here the results of all chunks are kept, the loss sees them
    together, and backward computes each chunk once more to send the loss's gradient through it. At
    any time the activations inside ``function`` exist for one chunk only.

    Args:
        function: Acts on each row by itself (no batch normalisation), for example an encoder.
            Random numbers that it draws from PyTorch's global generator, as dropout does, are the
            same both times.
        rows: [N, ...].
        chunk_size: Rows per chunk.

    Returns:
        What ``function`` returns, a tensor or a tuple of tensors with N rows each.

    Raises:
        ValueError: If ``chunk_size`` is less than 1.

    Source:
        Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
        on Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.

    Example:
        >>> encoder = torch.nn.Linear(4, 2)
        >>> rows = torch.randn(10, 4)
        >>> torch.allclose(in_chunks(encoder, rows, chunk_size=3), encoder(rows))
        True
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected 1 or more, got {chunk_size}")
    parts = [checkpoint(function, chunk, use_reentrant=False) for chunk in rows.split(chunk_size)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
