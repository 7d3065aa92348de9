"""Exact gradients of large batches for encoders whose activations do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["in_chunks"]


def in_chunks(function: Callable[[Any], Any], rows: Any, chunk_size: int) -> Any:
    r"""``function(rows)`` computed a chunk of rows at a time, with the whole batch's gradients.

    A contrastive loss compares every row with every other, so the gradients of small batches do
    not add up to those of a large one. Here the results of all chunks are kept, the loss sees them
    together, and backward computes each chunk once more to send the loss's gradient through it. At
    any time the activations inside ``function`` exist for one chunk only.

    Args:
        function: Acts on each row by itself (no batch normalisation), for example an encoder.
            Random numbers that it draws from PyTorch's global generator, as dropout does, are the
            same both times.
        rows: [N, ...], or a tuple, list or mapping of such tensors, such as tokenised text.
        chunk_size: Rows per chunk.

    Returns:
        What ``function`` returns: a tensor with N rows, or a tuple, list or mapping of such
        tensors, a mapping as a ``dict``. None in their place stays None.

    Raises:
        TypeError: If ``rows`` or a result is none of these.
        ValueError: If ``chunk_size`` is less than 1, or the tensors differ in their number of rows.

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
    counts = sorted({len(tensor) for tensor in _tensors(rows)})
    if len(counts) != 1:
        raise ValueError(f"rows: expected tensors of as many rows each, got {counts}")
    chunks = [_part(rows, start, chunk_size) for start in range(0, max(counts[0], 1), chunk_size)]
    return _join([checkpoint(function, chunk, use_reentrant=False) for chunk in chunks])


def _tensors(rows: Any) -> Iterator[Tensor]:
    if isinstance(rows, Tensor):
        yield rows
    elif isinstance(rows, Mapping | tuple | list):
        for part in rows.values() if isinstance(rows, Mapping) else rows:
            yield from _tensors(part)
    else:
        raise TypeError(
            f"rows: expected a tensor, or a tuple, list or mapping of tensors, got {_kind(rows)}"
        )


def _part(rows: Any, start: int, size: int) -> Any:
    if isinstance(rows, Tensor):
        return rows[start : start + size]
    if isinstance(rows, Mapping):
        return {key: _part(value, start, size) for key, value in rows.items()}
    return _like(rows, [_part(value, start, size) for value in rows])


def _join(parts: list[Any]) -> Any:
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):
        return {key: _join([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple | list):
        return _like(first, [_join(list(column)) for column in zip(*parts, strict=True)])
    raise TypeError(
        "function: expected it to return a tensor, or a tuple, list or mapping of tensors, got "
        + _kind(first)
    )


def _like(kind: Any, values: list[Any]) -> Any:
    """The values as a tuple, named tuple or list of this kind."""
    return type(kind)(*values) if hasattr(kind, "_fields") else type(kind)(values)


def _kind(value: Any) -> str:
    return type(value).__name__
