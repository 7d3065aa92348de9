"""Nearest-neighbour search over latent vectors: exact, or approximate for large label spaces."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mcfa_fast.linear import linear
from mcfa_fast.search.faiss_store import FaissStore
from mcfa_fast.search.files import read_index, write_index
from mcfa_fast.search.flat import FlatStore
from mcfa_fast.search.graph import GraphStore
from mcfa_fast.search.inverted_lists import ListStore
from mcfa_fast.search.locks import SharedLock
from mcfa_fast.search.vectors import Vectors, as_ids, as_vectors, first_of_each_id

__all__ = ["LatentIndex"]

Kind = Literal["flat", "ivf", "hnsw"]
Metric = Literal["cosine", "l2"]

_SCORES = 2**22  # floats of the scores of a chunk of queries


class LatentIndex:
    """Growing set of latent vectors with integer ids, searched for those nearest to queries.

    Vectors and queries are tensors of any floating type on any device; the index lives in main
    memory as float32. A contiguous float32 tensor there is read in place. Results come back on the
    queries' device.

    ``"flat"`` compares every query with every vector, and is the right kind up to tens of thousands
    of vectors. For more, ``"ivf"`` (inverted lists, quick to build) and ``"hnsw"`` (a graph, slow
    to build) look at a part of them: they may miss a nearest vector, the more often the lower the
    `effort`. Both are built by :meth:`build` or else the first :meth:`search`, and extended by
    later ones.

    Any number of threads may use an index: searches run side by side, changes one at a time.

    Args:
        dim: length D of a vector, 1 or more.
        metric: "cosine" ranks by cosine similarity (higher is nearer; a zero vector has similarity
            0 to everything), "l2" by squared Euclidean distance (lower is nearer) of vectors no
            longer than 2⁶² (4.6e18), beyond which it overflows.
        kind: "flat", "ivf" or "hnsw".
        effort: how much a search looks at: lists of an "ivf" (default a 64th of them, 16 at least),
            candidates kept by an "hnsw" (efSearch, default 64). A search can ask for another.
        size: lists of an "ivf" (default four times the root of the number of vectors, with 39
            vectors at least for each) or links per vector of an "hnsw" (M, default 32).

    Raises:
        ImportError: without ``pip install 'mcfa_fast[index]'``, for "ivf" and "hnsw" only.
        TypeError, ValueError: on a bad argument, or an `effort` or `size` for "flat".

    Source:
        Inverted lists: Sivic and Zisserman, "Video Google", 2003. Graph: Malkov and Yashunin,
        "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
        World graphs", 2020. Both by FAISS: Douze et al., "The Faiss library", 2024.

    Example:
        >>> index = LatentIndex(2)
        >>> index.add(torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([7, 9]))
        >>> scores, ids = index.search(torch.tensor([[0.0, 1.0]]), k=2)
        >>> scores.tolist(), ids.tolist()
        ([[1.0, 0.0]], [[9, 7]])

        A class may have several vectors, of which the best counts:

        >>> index.add(torch.tensor([[0.0, -1.0]]), torch.tensor([7]), several=True)
        >>> index.search(torch.tensor([[0.0, -1.0]]), k=2)[1].tolist()
        [[7, 9]]
    """

    def __init__(
        self,
        dim: int,
        metric: Metric = "cosine",
        kind: Kind = "flat",
        *,
        effort: int | None = None,
        size: int | None = None,
    ) -> None:
        for name, value in (("dim", dim), ("effort", effort), ("size", size)):
            if value is None and name != "dim":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        for name, choice, known in (("metric", metric, Metric), ("kind", kind, Kind)):
            if choice not in get_args(known):
                raise ValueError(f"{name}: expected one of {get_args(known)}, got {choice!r}")
        if kind == "flat" and (effort or size):
            raise ValueError("effort, size: an index of kind 'flat' has none")
        l2 = metric == "l2"
        if kind == "flat":
            self._use(FlatStore(dim, l2))
        else:
            store = ListStore if kind == "ivf" else GraphStore
            self._use(store(dim, l2, size=size, effort=effort))

    def _use(self, store: FlatStore | FaissStore) -> None:
        self._lock = SharedLock()
        self._store = store
        self._count()

    def _count(self) -> None:
        self._unique, counts = self._store.ids.unique(return_counts=True)
        self._most = int(counts.max()) if len(counts) else 1
        self._table: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self._store.dim

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return "l2" if self._store.l2 else "cosine"

    @property
    def kind(self) -> Kind:
        """How vectors are kept and searched."""
        kinds: dict[type, Kind] = {FlatStore: "flat", ListStore: "ivf", GraphStore: "hnsw"}
        return kinds[type(self._store)]

    @property
    def ids(self) -> Tensor:
        """The id [M] of every vector, int64, in the order in which they were added."""
        with self._lock.shared():
            return self._store.ids.clone()

    def contents(self) -> tuple[Tensor, Tensor]:
        """All vectors [M, D] as they are compared (for "cosine" of unit length), and their ids [M],
        in an order of the index's own."""
        return self._store.contents()

    def __len__(self) -> int:
        """Number of different ids."""
        return len(self._unique)

    def add(self, latents: Tensor, ids: Tensor, *, several: bool = False) -> None:
        """Store vectors under ids.

        Args:
            latents: finite floating vectors [M, D].
            ids: non-negative integers [M]; distinct ones that are not in the index yet.
            several: allow repeated and present ids, which then have several vectors.

        Raises:
            TypeError, ValueError: on wrong types or shapes, values that are not finite, negative,
                repeated or present ids.
        """
        vectors, keys = self._vectors("latents", latents), as_ids(ids)
        rows = len(vectors.values)
        if len(keys) != rows:
            raise ValueError(f"ids: expected one per latent ({rows}), got {len(keys)}")
        new = keys.unique()
        if not several and len(new) != len(keys):
            raise ValueError("ids: expected distinct ids, got repeated ones")
        values = vectors.values if self._store.l2 else vectors.unit()
        with self._lock.alone():
            present = new[torch.isin(new, self._unique)]
            if not several and len(present):
                raise ValueError(f"ids: expected new ids, but {present[0]} is in the index already")
            self._store.add(values, keys)
            self._table = None
            if len(present) or len(new) != len(keys):
                self._count()
            else:
                self._unique = torch.cat([self._unique, new])

    def remove(self, ids: Tensor) -> None:
        """Forget all vectors of these ids [M].

        In an "hnsw" their places stay, and are never returned, until half of all are such; the
        next search then builds the graph anew.

        Raises:
            KeyError: when an id is not in the index; nothing is removed then.
        """
        keys = as_ids(ids)
        with self._lock.alone():
            absent = keys[~torch.isin(keys, self._unique)]
            if len(absent):
                raise KeyError(f"ids: {absent[0]} is not in the index")
            self._store.remove(keys)
            self._table = None
            self._unique = self._unique[~torch.isin(self._unique, keys)]

    def build(self) -> None:
        """Do now what the next search would have to do first (see the class)."""
        with self._lock.alone():
            self._store.build()

    def to(self, device: torch.device | str) -> LatentIndex:
        """Search on this device from now on; the vectors stay in main memory as well.

        "flat" works on any device of PyTorch, "ivf" on a CUDA device with a GPU build of FAISS,
        "hnsw" on the CPU. This has been written without a GPU at hand and has not run on one.

        Returns:
            The index itself.
        """
        with self._lock.alone():
            self._store.to(torch.device(device))
        return self

    def search(
        self, queries: Tensor, k: int, *, effort: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The `k` nearest ids of every query, nearest first, each with its best vector's score.

        Args:
            queries: finite floating vectors [N, D].
            k: 1 .. number of ids.
            effort: instead of the index's own (see the class).

        Returns:
            Scores [N, k] (float32; see `metric`) and ids [N, k] (int64), on the queries' device.

        Raises:
            TypeError, ValueError: on wrong types or shapes, or values that are not finite.
        """
        vectors = self._vectors("queries", queries)
        if effort is not None and (self.kind == "flat" or effort < 1):
            raise ValueError(f"effort: expected 1 or more for 'ivf' and 'hnsw', got {effort}")
        values = vectors.values if self._store.l2 else vectors.safe()
        with self._built():
            if not 1 <= k <= len(self):
                raise ValueError(f"k: expected 1 .. {len(self)} (ids in the index), got {k}")
            if self._most == 1:
                scores, ids = self._store.search(values, k, effort)
            else:
                scores, ids = self._search_several(values, k, effort)
        if not self._store.l2:
            scores = vectors.divide(scores)
        return scores.to(queries.device), ids.to(queries.device)

    def scores(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Exact score of every id for every query, whatever the kind of index.

        Args:
            queries: finite floating vectors [N, D].

        Returns:
            Scores [N, K] (float32; see `metric`) and their ids [K], ascending, on the queries'
            device.

        Raises:
            TypeError, ValueError: on wrong types or shapes, or values that are not finite.
        """
        vectors = self._vectors("queries", queries)
        values = vectors.values if self._store.l2 else vectors.safe()
        with self._built():
            stored, columns, unique = self._table or self._make_table()
            most = self._most
        step = max(1, _SCORES // max(len(stored), 1))
        chunks = [
            self._best_of_each(self._pairs(part, stored), columns, len(unique), most)
            for part in values.split(step)
        ]
        scores = torch.cat(chunks) if len(chunks) > 1 else chunks[0]
        if not self._store.l2:
            scores = vectors.divide(scores)
        return scores.to(queries.device), unique.to(queries.device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write FAISS's own format, which any FAISS program reads, crash-safely.

        Raises:
            ImportError: when FAISS is not installed.
        """
        with self._lock.alone():
            self._store.build()
            write_index(Path(path), self._store)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatentIndex:
        """Read what :meth:`save` wrote; searches give the same as before.

        Raises:
            FileNotFoundError: without such a file.
            ImportError: when FAISS is not installed.
            ValueError: when the file is damaged or holds another kind of index.
        """
        return _restored(cls, read_index(Path(path)))

    def __deepcopy__(self, memo: dict[int, Any]) -> LatentIndex:
        with self._lock.alone():
            return _restored(type(self), copy.deepcopy(self._store, memo))

    def __copy__(self) -> LatentIndex:
        return copy.deepcopy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), copy.deepcopy(self)._store)

    @contextmanager
    def _built(self) -> Iterator[None]:
        """The store, ready to be searched, with others that search if it allows that."""
        while True:
            with self._lock.shared() if self._store.is_concurrent else self._lock.alone():
                if self._store.is_built:
                    yield
                    return
            self.build()

    def _make_table(self) -> tuple[Tensor, Tensor, Tensor]:
        """All vectors, the column of each, and the id of each column."""
        stored, ids = self._store.contents()
        unique, columns = ids.unique(return_inverse=True)
        if self._most == 1:  # so that columns are classes
            stored, columns = stored[ids.argsort()], torch.arange(len(ids))
        self._table = stored, columns, unique
        return self._table

    def _vectors(self, name: str, values: Tensor) -> Vectors:
        return as_vectors(name, values, self.dim, for_distances=self._store.l2)

    def _pairs(self, queries: Tensor, stored: Tensor) -> Tensor:
        if not self._store.l2:
            return linear(queries, stored)
        distances = torch.cdist(queries, stored, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.square_()

    def _best_of_each(self, scores: Tensor, columns: Tensor, count: int, most: int) -> Tensor:
        """Best score [N, count] over the vectors [N, M] of each id, given its column."""
        if most == 1:
            return scores
        worst, better = (torch.inf, "amin") if self._store.l2 else (-torch.inf, "amax")
        best = scores.new_full((len(scores), count), worst)
        return best.scatter_reduce_(1, columns.expand_as(scores), scores, better)

    def _search_several(self, queries: Tensor, k: int, effort: int | None) -> tuple[Tensor, Tensor]:
        """Looks at more vectors until there are k different ids among them, for every query."""
        scores = queries.new_empty(len(queries), k)
        ids = torch.empty(len(queries), k, dtype=torch.int64)
        # So many vectors cannot belong to fewer than k ids.
        enough = min((k - 1) * self._most + 1, len(self._store.ids))
        rows, fetched = torch.arange(len(queries)), min(2 * k, enough)
        while len(rows):
            found = self._store.search(queries[rows], fetched, effort)
            complete, *best = first_of_each_id(*found, k)
            scores[rows[complete]], ids[rows[complete]] = best
            rows, fetched = rows[~complete], min(4 * fetched, enough)
        return scores, ids


def _restored(index: type[LatentIndex], store: FlatStore | FaissStore) -> LatentIndex:
    restored = index.__new__(index)
    restored._use(store)
    return restored
