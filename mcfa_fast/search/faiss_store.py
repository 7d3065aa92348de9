"""What FAISS's inverted lists and its graph have in common as stores of a latent index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from mcfa_fast.search.faiss_module import require_faiss
from mcfa_fast.search.flat import FlatStore

__all__ = ["FaissStore"]


class FaissStore(ABC):
    """An index of FAISS; vectors wait in a table until :meth:`build` moves them there.

    Args:
        dim: length D of a vector.
        l2: squared Euclidean distance instead of the inner product.
        size: lists (inverted lists) or links per vector (graph); None chooses.
        effort: how much a search looks at, see the classes; None chooses.
        index: an index read from a file.
    """

    def __init__(
        self,
        dim: int,
        l2: bool,
        size: int | None = None,
        effort: int | None = None,
        index: Any = None,
    ) -> None:
        self.dim = dim
        self.l2 = l2
        self.size = size
        self.effort = effort
        self.device = torch.device("cpu")
        self._faiss = require_faiss("an approximate index")
        self._metric = self._faiss.METRIC_L2 if l2 else self._faiss.METRIC_INNER_PRODUCT
        self._waiting = FlatStore(dim, l2)
        self._index = index

    @property
    def is_concurrent(self) -> bool:
        """Whether several threads may search at once."""
        return True

    @property
    def is_built(self) -> bool:
        """Whether all vectors are in the index, and it has not outgrown its form."""
        if self._index is None or len(self._waiting.ids):
            return False
        return not self._is_outgrown(0)

    @property
    def ids(self) -> Tensor:
        """Ids [M] of the vectors, as they were added."""
        return torch.cat([self._indexed_ids(), self._waiting.ids])

    def add(self, vectors: Tensor, ids: Tensor) -> None:
        """Append vectors [M, D] (float32, in main memory) under ids [M]."""
        self._waiting.add(vectors, ids)

    def remove(self, ids: Tensor) -> None:
        """Forget all vectors of these ids, of which absent ones do not matter."""
        self._waiting.remove(ids)
        if self._index is not None:
            self._forget(ids)

    def build(self) -> None:
        """Make the index contain what was added, anew where it has outgrown its form.

        Searching, :meth:`contents` and :meth:`to_faiss` need it.
        """
        vectors, ids = self._waiting.contents()
        if self._index is None or self._is_outgrown(len(ids)):
            if self._index is not None:
                old_vectors, old_ids = self._indexed()
                vectors, ids = torch.cat([old_vectors, vectors]), torch.cat([old_ids, ids])
            self._create(vectors)
        if len(ids):
            self._insert(vectors, ids)
        self._waiting = FlatStore(self.dim, self.l2)

    def search(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        """Scores and ids [N, k] of the nearest vectors that were found; all k are vectors."""
        scores, ids = self._search(queries, k, effort)
        short = (ids < 0).any(dim=1)
        if short.any():  # less effort than it takes to meet k vectors at all
            scores[short], ids[short] = self._search_all(queries[short], k)
        return scores, ids

    def contents(self) -> tuple[Tensor, Tensor]:
        """All vectors and ids, in no particular order."""
        return self._indexed()

    def __getstate__(self) -> dict[str, Any]:
        index = None if self._index is None else self._faiss.serialize_index(self._index)
        return {**self.__dict__, "_faiss": None, "_index": index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._faiss = require_faiss("an approximate index")
        if self._index is not None:
            self._index = self._faiss.deserialize_index(self._index)

    @abstractmethod
    def _indexed_ids(self) -> Tensor:
        """Ids of the vectors in the index."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Search on this device from now on."""

    @abstractmethod
    def to_faiss(self, faiss: Any) -> Any:
        """The index as FAISS writes it."""

    @abstractmethod
    def _is_outgrown(self, added: int) -> bool:
        """Whether to build anew, with so many vectors to be added."""

    @abstractmethod
    def _create(self, vectors: Tensor) -> None:
        """A new index, empty, but fit for these vectors."""

    @abstractmethod
    def _insert(self, vectors: Tensor, ids: Tensor) -> None: ...

    @abstractmethod
    def _forget(self, ids: Tensor) -> None: ...

    @abstractmethod
    def _indexed(self) -> tuple[Tensor, Tensor]:
        """Vectors and ids in the index."""

    @abstractmethod
    def _search(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        """Scores and ids [N, k]; -1 where nothing was found."""

    @abstractmethod
    def _search_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The same by looking at every vector."""
