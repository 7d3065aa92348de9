"""FAISS's navigable graph as the store of a latent index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.search.exact import ExactSearch
from mcfa_fast.search.faiss_store import FaissStore

__all__ = ["GraphStore"]


class GraphStore(FaissStore):
    """Navigable graph (FAISS HNSW): every vector is linked to near ones.

    A search walks from vector to vector with a list of the `effort` best so far. FAISS cannot take
    vectors out of a graph, so removed ones stay as stepping stones that are never returned, until
    they are half of all; then the graph is built anew.
    """

    _EFFORT = 64

    def __init__(self, dim: int, l2: bool, **options: Any) -> None:
        super().__init__(dim, l2, **options)
        self._slots = torch.empty(0, dtype=torch.int64)
        """Id of every vector in the graph; -1 where it was removed."""
        if self._index is not None:
            self.effort = self._graph().hnsw.efSearch
            self._slots = torch.from_numpy(self._faiss.vector_to_array(self._index.id_map).copy())

    def _indexed_ids(self) -> Tensor:
        return self._slots[self._slots >= 0]

    def to(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise ValueError(f"device: FAISS searches graphs on the CPU only, got {device}")

    def to_faiss(self, faiss: Any) -> Any:
        self._graph().hnsw.efSearch = self.effort or self._EFFORT
        faiss.copy_array_to_vector(self._slots.numpy(), self._index.id_map)
        return self._index

    def _is_outgrown(self, added: int) -> bool:
        return 2 * int((self._slots < 0).sum()) > len(self._slots)

    def _create(self, vectors: Tensor) -> None:
        links = 32 if self.size is None else self.size
        graph = self._faiss.IndexHNSWFlat(self.dim, links, self._metric)
        graph.hnsw.efConstruction = 40
        self._index = self._faiss.IndexIDMap(graph)
        self._slots = torch.empty(0, dtype=torch.int64)

    def _insert(self, vectors: Tensor, ids: Tensor) -> None:
        self._index.add_with_ids(vectors.numpy(), ids.numpy())
        self._slots = torch.cat([self._slots, ids])

    def _forget(self, ids: Tensor) -> None:
        self._slots[torch.isin(self._slots, ids)] = -1

    def _graph(self) -> Any:
        return self._faiss.downcast_index(self._index.index)

    def _table(self) -> Tensor:
        """Every vector of the graph [slots, D], removed ones too: a view."""
        flat = self._faiss.downcast_index(self._graph().storage)
        values = self._faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * self.dim)
        return torch.from_numpy(values.reshape(flat.ntotal, self.dim))

    def _indexed(self) -> tuple[Tensor, Tensor]:
        kept = self._slots >= 0
        return self._table()[kept], self._slots[kept]

    def _search(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        faiss = self._faiss
        options: dict[str, Any] = {"efSearch": max(effort or self.effort or self._EFFORT, k)}
        kept = self._slots >= 0
        if not kept.all():
            bits = np.packbits(kept.numpy(), bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersHNSW(**options)
        scores, slots = self._graph().search(queries.numpy(), k, params=parameters)
        slots = torch.from_numpy(slots)
        ids = torch.where(slots < 0, slots, self._slots[slots])
        return torch.from_numpy(scores), ids

    def _search_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        vectors, ids = self._indexed()
        scores, rows = ExactSearch(vectors, l2=self.l2)(queries, k)
        return scores, ids[rows]
