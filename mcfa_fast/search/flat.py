"""A plain table as the store of a latent index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mcfa_fast.search.exact import ExactSearch

__all__ = ["FlatStore"]


class FlatStore:
    """Table of vectors with ids, searched exactly.

    Args:
        dim: length D of a vector.
        l2: squared Euclidean distance instead of the inner product.
    """

    def __init__(self, dim: int, l2: bool) -> None:
        self.dim = dim
        self.l2 = l2
        self.device = torch.device("cpu")
        self._vectors = torch.empty(0, dim)
        self._ids = torch.empty(0, dtype=torch.int64)
        self._count = 0
        self._search: ExactSearch | None = None

    @property
    def ids(self) -> Tensor:
        """Ids [M] of the vectors, as they were added."""
        return self._ids[: self._count]

    @property
    def vectors(self) -> Tensor:
        """The vectors [M, D] in main memory, as they were added."""
        return self._vectors[: self._count]

    def add(self, vectors: Tensor, ids: Tensor) -> None:
        """Append vectors [M, D] (float32, in main memory) under ids [M]."""
        total = self._count + len(ids)
        if total > len(self._ids):
            # Room for as many again, so that adding one by one does not copy all every time.
            capacity = max(total, 2 * self._count)
            self._vectors = _resized(self.vectors, capacity)
            self._ids = _resized(self.ids, capacity)
        self._vectors[self._count : total] = vectors
        self._ids[self._count : total] = ids
        self._count, self._search = total, None

    def remove(self, ids: Tensor) -> None:
        """Forget all vectors of these ids, of which absent ones do not matter."""
        kept = ~torch.isin(self.ids, ids)
        self._vectors, self._ids = self.vectors[kept], self.ids[kept]
        self._count, self._search = len(self._ids), None

    def to(self, device: torch.device) -> None:
        """Search on this device from now on."""
        self.device, self._search = device, None

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may search at once."""
        return True

    @property
    def is_built(self) -> bool:
        """Whether the search is prepared."""
        return self._search is not None or not self._count

    def build(self) -> None:
        """Prepare the search, which needs it."""
        if not self.is_built:
            self._search = ExactSearch(self.vectors.to(self.device), l2=self.l2)

    def search(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        """Scores and ids [N, k] of the nearest vectors, in main memory."""
        assert self._search is not None, "build() comes first"
        scores, rows = self._search(queries.to(self.device), k)
        return scores.cpu(), self._ids.take(rows.cpu())

    def contents(self) -> tuple[Tensor, Tensor]:
        """All vectors and ids."""
        return self.vectors, self.ids

    def to_faiss(self, faiss: Any) -> Any:
        """The table as an index of FAISS."""
        flat = faiss.IndexFlatL2(self.dim) if self.l2 else faiss.IndexFlatIP(self.dim)
        index = faiss.IndexIDMap2(flat)
        index.add_with_ids(self.vectors.numpy(), self.ids.numpy())
        return index

    def __getstate__(self) -> dict[str, Any]:
        # Without the room for more, and what can be prepared again.
        kept = {"_vectors": self.vectors.clone(), "_ids": self.ids.clone(), "_search": None}
        return {**self.__dict__, **kept}


def _resized(values: Tensor, rows: int) -> Tensor:
    resized = values.new_empty(rows, *values.shape[1:])
    resized[: len(values)] = values
    return resized
