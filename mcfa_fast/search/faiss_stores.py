"""FAISS's inverted lists and graph as stores of a latent index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.search.flat import ExactSearch
from mcfa_fast.search.faiss_module import require_faiss
from mcfa_fast.search.stores import FlatStore

__all__ = ["FaissStore", "GraphStore", "ListStore"]

# FAISS's own advice for k-means: fewer points than this per centroid do not place it well, and
# more only take time.
_POINTS_PER_LIST = (39, 64)


class FaissStore(ABC):
    """What both have in common: vectors wait in a table until a search or :meth:`build` needs them.

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
        """Make the index contain what was added, anew where it has outgrown its form."""
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
        self.build()
        scores, ids = self._search(queries, k, effort)
        short = (ids < 0).any(dim=1)
        if short.any():  # less effort than it takes to meet k vectors at all
            scores[short], ids[short] = self._search_all(queries[short], k)
        return scores, ids

    def contents(self) -> tuple[Tensor, Tensor]:
        """All vectors and ids, in no particular order."""
        self.build()
        return self._indexed()

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


class ListStore(FaissStore):
    """Inverted lists (FAISS IVFFlat): vectors in the list of their nearest centroid.

    A search looks at the `effort` lists whose centroids are nearest to the query. The centroids are
    k-means of the vectors that are there when the index is built, 4·sqrt(M) of them by default, and
    trained anew once there are four times as many vectors.
    """

    _GROWTH = 4

    def __init__(self, dim: int, l2: bool, **options: Any) -> None:
        super().__init__(dim, l2, **options)
        self._trained = 0
        self._list_ids = torch.empty(0, dtype=torch.int64)
        self._moved: Any = None
        if self._index is not None:
            self.effort = self._index.nprobe
            self._trained = self._index.ntotal
            self._list_ids = self._indexed()[1]

    def _indexed_ids(self) -> Tensor:
        return self._list_ids

    def to(self, device: torch.device) -> None:
        self.device, self._moved = device, None

    def to_faiss(self, faiss: Any) -> Any:
        self.build()
        self._index.nprobe = self._probes(None)
        return self._index

    def _probes(self, effort: int | None) -> int:
        lists = self._index.nlist
        return min(effort or self.effort or max(16, lists // 64), lists)

    def _is_outgrown(self, added: int) -> bool:
        return self._index.ntotal + added >= self._GROWTH * max(self._trained, 1)

    def _create(self, vectors: Tensor) -> None:
        faiss, count = self._faiss, len(vectors)
        fewest, most = _POINTS_PER_LIST
        lists = round(4 * count**0.5) if self.size is None else self.size
        lists = max(1, min(lists, count // fewest))
        quantizer = faiss.IndexFlat(self.dim, self._metric)
        index = faiss.IndexIVFFlat(quantizer, self.dim, lists, self._metric)
        index.cp.max_points_per_centroid = most
        index.train(vectors.numpy() if count else np.zeros((1, self.dim), dtype=np.float32))
        self._index, self._trained = index, count
        self._list_ids = torch.empty(0, dtype=torch.int64)

    def _insert(self, vectors: Tensor, ids: Tensor) -> None:
        self._index.add_with_ids(vectors.numpy(), ids.numpy())
        self._list_ids, self._moved = torch.cat([self._list_ids, ids]), None

    def _forget(self, ids: Tensor) -> None:
        self._index.remove_ids(ids.numpy())
        self._list_ids = self._list_ids[~torch.isin(self._list_ids, ids)]
        self._moved = None

    def _indexed(self) -> tuple[Tensor, Tensor]:
        from faiss.contrib.inspect_tools import get_invlist

        lists = [get_invlist(self._index.invlists, number) for number in range(self._index.nlist)]
        ids = np.concatenate([ids for ids, _ in lists])
        codes = np.concatenate([codes for _, codes in lists])
        vectors = codes.view(np.float32).reshape(len(ids), self.dim)
        return torch.from_numpy(vectors), torch.from_numpy(ids)

    def _search(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        faiss = self._faiss
        if self._moved is None:
            self._moved = self._index
            if self.device.type == "cuda":
                if not hasattr(faiss, "StandardGpuResources"):
                    raise ImportError("inverted lists on a GPU need a GPU build of FAISS")
                self._resources = faiss.StandardGpuResources()
                number = self.device.index or 0
                self._moved = faiss.index_cpu_to_gpu(self._resources, number, self._index)
        parameters = faiss.SearchParametersIVF(nprobe=self._probes(effort))
        scores, ids = self._moved.search(queries.numpy(), k, params=parameters)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def _search_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self._search(queries, k, self._index.nlist)


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
        self.build()
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
