"""Exact nearest neighbours of all rows among each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mcfa_fast.linear import linear

__all__ = ["nearest_others"]

_BLOCK = 2048  # rows; the products of two blocks, 16 MiB, stay in cache


def nearest_others(
    vectors: Tensor,
    k: int,
    progress: Callable[[int], None] | None = None,
    *,
    wanted: int | None = None,
) -> Tensor:
    r"""Row numbers [N, k] of the k other rows of largest inner product, in no certain order.

    The products :math:`V V^\top` are computed block by block, and a block serves both of its
    sides, so that every pair of rows is multiplied once. Memory is that of the result.

    Args:
        vectors: finite float32 [N, D] in main memory.
        k: 1..N-1.
        progress: called with how many rows have been compared with all others since.
        wanted: how many of the first rows to find neighbours of [wanted, k]; None is all.

    Raises:
        ValueError: if `k` is out of its bounds.

    Example:
        >>> nearest_others(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1).tolist()
        [[1], [0], [1]]
    """
    count = len(vectors)
    if not 1 <= k < count:
        raise ValueError(f"k: expected 1..{count - 1}, fewer than the rows, got {k}")
    wanted = count if wanted is None else wanted
    best = _Best(count, k)
    blocks = [slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    for number, rows in enumerate(blocks):
        if rows.start >= wanted:
            break
        own = vectors[rows]
        best.take(rows, linear(own, own).fill_diagonal_(-torch.inf), rows)
        for others in blocks[number + 1 :]:
            best.take(rows, linear(own, vectors[others]), others)
        if progress is not None:
            progress(min(rows.stop, wanted) - rows.start)
    return best.rows[:wanted]


class _Best:
    """The k largest products of every row so far, and with whom they are."""

    def __init__(self, count: int, k: int) -> None:
        self.k = k
        self.rows = torch.zeros(count, k, dtype=torch.int64)
        self._values = torch.full((count, k), -torch.inf)

    def take(self, rows: slice, products: Tensor, others: slice) -> None:
        """Take in the products [n, m] of some rows with others, which are the same or later."""
        least = self._values[rows].amin(dim=1), self._values[others].amin(dim=1)
        if rows == others or not torch.isfinite(least[1]).all():  # all of them are new
            self._merge(rows, *_largest(products, self.k), others.start)
            if rows != others:
                self._merge(others, *_largest(products.T.contiguous(), self.k), rows.start)
            return
        # Most products change nothing once a few blocks have passed.
        found = _nonzero((products > least[0][:, None]).logical_or_(products > least[1]))
        values = products[found[0], found[1]]
        self._merge(rows, *_table(values, found[0], found[1], len(products)), others.start)
        order = found[1].argsort(stable=True)
        values, found = values[order], found[:, order]
        self._merge(others, *_table(values, found[1], found[0], products.shape[1]), rows.start)

    def _merge(self, rows: slice, values: Tensor, numbers: Tensor, first: int) -> None:
        values = torch.cat([self._values[rows], values], dim=1)
        numbers = torch.cat([self.rows[rows], numbers + first], dim=1)
        self._values[rows], kept = values.topk(self.k, dim=1, sorted=False)
        self.rows[rows] = numbers.gather(1, kept)


def _largest(products: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return products.topk(min(k, products.shape[1]), dim=1, sorted=False)


def _nonzero(mask: Tensor) -> Tensor:
    """Rows and columns [2, H] of the entries that are true, row by row."""
    if mask.shape[1] % 8:
        return mask.nonzero().T
    row, eight = mask.view(torch.int64).nonzero().T  # eight entries at a time: nearly all are not
    hit, place = mask.view(len(mask), -1, 8)[row, eight].nonzero().T
    return torch.stack([row[hit], eight[hit] * 8 + place])


def _table(values: Tensor, rows: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Entries in ascending order of their rows as a table with `count` rows, filled up by -inf."""
    lengths = rows.bincount(minlength=count)
    place = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
    table = torch.full((count, int(lengths.max())), -torch.inf)
    own = torch.zeros(table.shape, dtype=torch.int64)
    table[rows, place], own[rows, place] = values, numbers
    return table, own
