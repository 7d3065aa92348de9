"""FAISS's inverted lists as the store of a latent index."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.search.faiss_store import FaissStore

__all__ = ["ListStore"]

# FAISS's own advice for k-means: fewer points than this per centroid do not place it well, and
# more only take time.
_POINTS_PER_LIST = (39, 64)


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
        self._resources: Any = None
        if self._index is not None:
            self.effort = self._index.nprobe
            self._trained = self._index.ntotal
            self._list_ids = self._indexed()[1]

    def _indexed_ids(self) -> Tensor:
        return self._list_ids

    @property
    def is_built(self) -> bool:
        return super().is_built and self._moved is not None

    @property
    def is_concurrent(self) -> bool:
        return self.device.type == "cpu"  # FAISS's indexes on a GPU are not

    def build(self) -> None:
        super().build()
        if self._moved is None:
            self._moved = self._on_device()

    def to(self, device: torch.device) -> None:
        self.device, self._moved = device, None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_moved": None, "_resources": None}

    def to_faiss(self, faiss: Any) -> Any:
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
        parameters = self._faiss.SearchParametersIVF(nprobe=self._probes(effort))
        scores, ids = self._moved.search(queries.numpy(), k, params=parameters)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def _on_device(self) -> Any:
        if self.device.type != "cuda":
            return self._index
        if not hasattr(self._faiss, "StandardGpuResources"):
            raise ImportError("inverted lists on a GPU need a GPU build of FAISS")
        self._resources = self._faiss.StandardGpuResources()
        return self._faiss.index_cpu_to_gpu(self._resources, self.device.index or 0, self._index)

    def _search_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self._search(queries, k, self._index.nlist)
