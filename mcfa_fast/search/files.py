"""Files of a latent index: FAISS's own format, with a checksum behind it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcfa_fast.search.faiss_module import require_faiss
from mcfa_fast.search.faiss_store import FaissStore
from mcfa_fast.search.flat import FlatStore
from mcfa_fast.search.graph import GraphStore
from mcfa_fast.search.inverted_lists import ListStore
from mcfa_fast.storage.atomic import write_atomically

__all__ = ["read_index", "write_index"]

# FAISS stops reading where its index ends, and trusts what it has read: a damaged graph would make
# a search read anywhere. So the file goes on with this mark and a digest of all before it.
_MARK = b"mcfa_fast index"
_DIGEST_BYTES = 32


def write_index(path: Path, store: FlatStore | FaissStore) -> None:
    """Write a store crash-safely."""
    faiss = require_faiss("saving an index")
    content = faiss.serialize_index(store.to_faiss(faiss)).data

    def write(file: Any) -> None:
        for part in (content, _MARK, _digest(content)):
            file.write(part)

    write_atomically(path, write)


def read_index(path: Path) -> FlatStore | FaissStore:
    """Read what :func:`write_index` wrote.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when the file is damaged or holds another kind of index.
    """
    faiss = require_faiss("loading an index")
    if not path.is_file():
        raise FileNotFoundError(f"no index file at {path}")
    content = np.fromfile(path, dtype=np.uint8)
    end = len(content) - len(_MARK) - _DIGEST_BYTES
    if end < 0 or content[end : end + len(_MARK)].tobytes() != _MARK:
        raise ValueError(f"{path}: damaged, or not an index saved by LatentIndex")
    if _digest(content[:end].data) != content[-_DIGEST_BYTES:].tobytes():
        raise ValueError(f"{path}: damaged (its checksum is wrong)")
    try:
        return _store_of(faiss, faiss.deserialize_index(content[:end]))
    except Exception as error:  # FAISS's own, and of attributes that other kinds lack
        raise ValueError(f"{path}: not an index that LatentIndex saves ({error})") from error


def _store_of(faiss: Any, index: Any) -> FlatStore | FaissStore:
    l2 = index.metric_type == faiss.METRIC_L2
    if isinstance(index, faiss.IndexIVFFlat):
        return ListStore(index.d, l2, size=index.nlist, index=index)
    inner = faiss.downcast_index(index.index)
    if isinstance(inner, faiss.IndexHNSWFlat):
        return GraphStore(index.d, l2, size=inner.hnsw.nb_neighbors(1), index=index)
    store = FlatStore(index.d, l2)
    vectors = faiss.rev_swig_ptr(inner.get_xb(), inner.ntotal * inner.d)
    vectors = torch.from_numpy(vectors.reshape(inner.ntotal, inner.d))
    store.add(vectors, torch.from_numpy(faiss.vector_to_array(index.id_map)))
    return store


def _digest(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
