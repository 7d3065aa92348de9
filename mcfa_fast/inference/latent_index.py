"""Exact nearest-neighbour search over latent vectors, on FAISS."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.training.checkpoint import write_atomically

__all__ = ["LatentIndex"]


class LatentIndex:
    """Growing set of latent vectors with integer ids, searched exactly (FAISS Flat).

    Vectors and queries are tensors of any floating type on any device; the index itself lives in
    main memory as float32. Results come back on the queries' device.

    Args:
        dim: length D of a vector, 1 or more.
        metric: "cosine" ranks by cosine similarity (higher is nearer; a zero vector has similarity
            0 to everything), "l2" by squared Euclidean distance (lower is nearer).

    Raises:
        ImportError: when FAISS is not installed.
        TypeError, ValueError: on a bad `dim` or `metric`.

    Example:
        >>> index = LatentIndex(2)
        >>> index.add(torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([7, 9]))
        >>> scores, ids = index.search(torch.tensor([[0.0, 1.0]]), k=2)
        >>> scores.tolist(), ids.tolist()
        ([[1.0, 0.0]], [[9, 7]])
    """

    def __init__(self, dim: int, metric: Literal["cosine", "l2"] = "cosine") -> None:
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise TypeError(f"dim: expected an integer, got {type(dim).__name__}")
        if dim < 1:
            raise ValueError(f"dim: expected 1 or more, got {dim}")
        if metric not in ("cosine", "l2"):
            raise ValueError(f"metric: expected 'cosine' or 'l2', got {metric!r}")
        faiss = _faiss()
        flat = faiss.IndexFlatIP(dim) if metric == "cosine" else faiss.IndexFlatL2(dim)
        self._index: Any = faiss.IndexIDMap2(flat)

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return self._index.d

    @property
    def metric(self) -> Literal["cosine", "l2"]:
        """How vectors are compared."""
        return "cosine" if self._index.metric_type == _faiss().METRIC_INNER_PRODUCT else "l2"

    @property
    def ids(self) -> Tensor:
        """The ids [M] in the order in which they are stored, int64."""
        return torch.from_numpy(_faiss().vector_to_array(self._index.id_map).copy())

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, latents: Tensor, ids: Tensor) -> None:
        """Store vectors under ids that are not in the index yet.

        Args:
            latents: finite floating vectors [M, D].
            ids: distinct non-negative integers [M].

        Raises:
            TypeError, ValueError: on wrong types or shapes, values that are not finite, negative,
                repeated or present ids.
        """
        vectors, keys = self._vectors("latents", latents), _ids(ids)
        if len(keys) != len(vectors):
            raise ValueError(f"ids: expected one per latent ({len(vectors)}), got {len(keys)}")
        if len(np.unique(keys)) != len(keys):
            raise ValueError("ids: expected distinct ids, got repeated ones")
        present = np.intersect1d(keys, self.ids.numpy())
        if present.size:
            raise ValueError(f"ids: expected new ids, but {present[0]} is in the index already")
        self._index.add_with_ids(vectors, keys)

    def remove(self, ids: Tensor) -> None:
        """Forget the vectors of these ids [M].

        Raises:
            KeyError: when an id is not in the index; nothing is removed then.
        """
        keys = _ids(ids)
        absent = np.setdiff1d(keys, self.ids.numpy())
        if absent.size:
            raise KeyError(f"ids: {absent[0]} is not in the index")
        self._index.remove_ids(keys)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The `k` nearest stored vectors of every query, nearest first.

        Args:
            queries: finite floating vectors [N, D].
            k: 1 .. number of stored vectors.

        Returns:
            Scores [N, k] (float32; see `metric`) and ids [N, k] (int64), on the queries' device.
        """
        vectors = self._vectors("queries", queries)
        if not 1 <= k <= len(self):
            raise ValueError(f"k: expected 1 .. {len(self)} (vectors in the index), got {k}")
        scores, ids = self._index.search(vectors, k)
        device = queries.device
        return torch.from_numpy(scores).to(device), torch.from_numpy(ids).to(device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write FAISS's own format, which any FAISS program reads, crash-safely."""
        content = _faiss().serialize_index(self._index)
        write_atomically(Path(path), lambda file: file.write(content.data))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatentIndex:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: when the file is damaged or holds another kind of index.
        """
        faiss = _faiss()
        if not Path(path).is_file():
            raise FileNotFoundError(f"no index file at {path}")
        try:
            stored = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path}: not a readable FAISS index") from error
        metrics = (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2)
        if not isinstance(stored, faiss.IndexIDMap2) or stored.metric_type not in metrics:
            raise ValueError(f"{path}: expected an index saved by LatentIndex, got {type(stored)}")
        index = cls.__new__(cls)
        index._index = stored
        return index

    def _vectors(self, name: str, values: Tensor) -> np.ndarray:
        if not isinstance(values, Tensor) or not values.is_floating_point():
            kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise TypeError(f"{name}: expected a floating tensor, got {kind}")
        if values.ndim != 2 or values.shape[1] != self.dim:
            raise ValueError(f"{name}: expected [rows, {self.dim}], got {tuple(values.shape)}")
        vectors = values.detach().cpu()
        if self.metric == "cosine":
            # In float64, so that the norm of a large or tiny vector is still exact.
            vectors = F.normalize(vectors.double(), dim=1, eps=1e-300)
        vectors = vectors.float().contiguous()
        if not torch.isfinite(vectors).all():
            raise ValueError(f"{name}: expected finite float32 values, got NaN or infinity")
        return vectors.numpy()


def _ids(ids: Tensor) -> np.ndarray:
    if not isinstance(ids, Tensor) or ids.dtype.is_floating_point or ids.dtype == torch.bool:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids: expected an integer tensor, got {kind}")
    if ids.ndim != 1:
        raise ValueError(f"ids: expected a vector, got shape {tuple(ids.shape)}")
    # FAISS answers "nothing found" with id -1, so negative ids would be ambiguous.
    if ids.numel() and ids.min() < 0:
        raise ValueError(f"ids: expected 0 or more, got {int(ids.min())}")
    return ids.detach().to("cpu", torch.int64).contiguous().numpy()


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("the nearest-class index needs FAISS: pip install faiss-cpu") from error
    return faiss
