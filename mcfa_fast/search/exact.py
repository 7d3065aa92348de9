"""Exact nearest vectors: products in blocks that stay in cache, and their largest entries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.linear import linear
from mcfa_fast.search.faiss_module import find_faiss

__all__ = ["ExactSearch", "top_columns"]

# Measured on two AVX-512 cores, D = 64: FAISS scans without a matrix product, on one thread, which
# is faster for a single query among so many vectors.
_SCAN = 2**17

_BLOCK = 2**20  # floats of a block of products
_WIDE = 2**16  # vectors from which on a block holds a part of them only
_WIDE_ROWS, _WIDE_COLUMNS = 512, 4096
_GROUP = 64  # columns that one maximum stands for
# For many short rows, k passes of the vectorised maximum are faster than PyTorch's topk.
_MOST_PASSES, _SHORT_ROW, _MANY_ROWS = 8, 128, 512
_GATHERED = 2**22  # floats of gathered vectors


class ExactSearch:
    r"""The k vectors of largest inner product, or of smallest distance, of every query.

    Distances are found as :math:`\arg\max_v q \cdot v - |v|^2 / 2`, relative to the mean of the
    vectors, and then computed anew from the differences, so that they keep their digits where
    vectors nearly agree.

    Args:
        vectors: finite float32 [M, D], contiguous, M > 0.
        l2: squared Euclidean distance instead of the inner product.

    Example:
        >>> search = ExactSearch(torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]]), l2=True)
        >>> scores, rows = search(torch.tensor([[1.0, 1.0]]), 2)
        >>> scores.tolist(), rows.tolist()
        ([[1.0, 2.0]], [[0, 2]])
    """

    def __init__(self, vectors: Tensor, *, l2: bool) -> None:
        self._given = self._vectors = vectors
        self._centre = self._bias = None
        if l2:
            self._centre = vectors.mean(dim=0)
            self._vectors = vectors - self._centre
            self._bias = self._vectors.square().sum(dim=1).mul_(-0.5)

    def __call__(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores [N, k], best first, and row numbers [N, k] of the vectors.

        Which of several equal vectors come first is not specified.

        Args:
            queries: finite float32 [N, D], contiguous, on the device of the vectors.
            k: 1..M.
        """
        l2, width = self._bias is not None, len(self._vectors)
        faiss = find_faiss() if _is_scan(queries, width) else None
        if faiss is not None:
            metric = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
            scores, rows = faiss.knn(queries.numpy(), self._given.numpy(), k, metric)
            return torch.from_numpy(scores), torch.from_numpy(rows)
        is_wide = width > _WIDE and k * _GROUP <= width // _GROUP
        find = self._among_many if is_wide else self._among_all
        step = _WIDE_ROWS if is_wide else max(_BLOCK // width, 16)
        if len(queries) <= step:
            scores, rows = find(queries, k)
        else:
            scores = queries.new_empty(len(queries), k)
            rows = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
            for start in range(0, len(queries), step):
                part = slice(start, start + step)
                scores[part], rows[part] = find(queries[part], k)
        return _distances(queries, self._given, rows) if l2 else (scores, rows)

    def _among_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self._centre is not None:
            queries = queries - self._centre
        return top_columns(linear(queries, self._vectors, self._bias), k)

    def _among_many(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Looks at those of the k best groups of vectors alone.

        An entry that is among the k largest belongs to a group whose maximum is, so all other
        groups can be left out after one cheap pass over the products, while they are in cache.
        """
        if self._centre is not None:
            queries = queries - self._centre
        rows = _members(self._group_maxima(queries).topk(k, dim=1).indices, len(self._vectors))
        past = rows >= len(self._vectors)  # padding of the last block
        rows[past] = 0
        products = _gathered_products(queries, self._vectors, rows)
        if self._bias is not None:
            products += self._bias[rows]
        scores, columns = top_columns(products.masked_fill_(past, -torch.inf), k)
        return scores, rows.gather(1, columns)

    def _group_maxima(self, queries: Tensor) -> Tensor:
        """Largest product [N, groups] of every group of a block of vectors, block after block."""
        maxima = []
        for start in range(0, len(self._vectors), _WIDE_COLUMNS):
            block = slice(start, start + _WIDE_COLUMNS)
            bias = None if self._bias is None else self._bias[block]
            products = linear(queries, self._vectors[block], bias)
            if missing := -products.shape[1] % _GROUP:
                products = F.pad(products, (0, missing), value=-torch.inf)
            # Columns of a group lie a stride apart: the maximum runs along contiguous memory.
            maxima.append(products.unflatten(1, (_GROUP, -1)).amax(dim=1))
        return torch.cat(maxima, dim=1)


def top_columns(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns [N, k] of every row's largest entries, largest first.

    `scores` [N, C] may be overwritten.
    """
    if k == 1:
        return scores.max(dim=1, keepdim=True)
    rows, width = scores.shape
    if k > _MOST_PASSES or width > _SHORT_ROW or rows < _MANY_ROWS:
        return scores.topk(k, dim=1)
    values, columns = [], []
    for rank in range(k):
        value, column = scores.max(dim=1, keepdim=True)
        values.append(value)
        columns.append(column)
        if rank + 1 < k:
            scores.scatter_(1, column, -torch.inf)
    return torch.cat(values, dim=1), torch.cat(columns, dim=1)


def _is_scan(queries: Tensor, width: int) -> bool:
    return len(queries) == 1 and width <= _SCAN and queries.device.type == "cpu"


def _members(groups: Tensor, width: int) -> Tensor:
    """Row numbers [N, k·g] of the vectors in groups [N, k]; those from `width` on are padding."""
    whole = _WIDE_COLUMNS // _GROUP
    first = groups // whole * _WIDE_COLUMNS
    stride = ((width - first).clamp_(max=_WIDE_COLUMNS) + _GROUP - 1) // _GROUP
    members = torch.arange(_GROUP, device=groups.device)
    return ((first + groups % whole)[:, :, None] + members * stride[:, :, None]).flatten(1)


def _gathered_products(queries: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
    """Inner products [N, J] of every query with the vectors of its own row numbers [N, J]."""
    products = queries.new_empty(rows.shape)
    step = max(1, _GATHERED // (rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products[part] = torch.bmm(vectors[rows[part]], queries[part, :, None])[:, :, 0]
    return products


def _distances(queries: Tensor, vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances to the vectors of the given row numbers [N, k], smallest first."""
    distances = queries.new_empty(rows.shape)
    step = max(1, _GATHERED // (rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        distances[part] = (vectors[rows[part]] - queries[part, None]).square_().sum(dim=2)
    distances, order = distances.sort(dim=1, stable=True)
    return distances, rows.gather(1, order)
