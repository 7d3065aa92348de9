"""Features of any number of images, a chunk of rows after the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.data.checks import check_features
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.npy import NpyFile, file_of

__all__ = ["read_chunks", "row_parts"]

_CHUNK = 2**19  # features of a chunk: 2 MiB, so that a chunk and its hidden units stay in cache
_SCORES = 2**22  # floats of the scores of a part


def read_chunks(features: np.ndarray | NpyFile) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows as float32 tensors in main memory, each valid until the next is asked for.

    A file is read by a second thread while chunks are computed, so it may be of any size: memory
    stays constant.

    Args:
        features: raw features [N, F], see :func:`~mcfa_fast.data.inputs.as_features`.

    Yields:
        Which rows, and their features [n, F].

    Raises:
        ValueError: at the first row with a value that is not finite in float32.

    Example:
        >>> [(rows.stop, chunk.shape) for rows, chunk in read_chunks(np.zeros((3, 8)))]
        [(3, torch.Size([3, 8]))]
    """
    size = max(16, _CHUNK // features.shape[1])
    for rows, chunk in _chunks(features, size):
        values = chunk.to(torch.float32)
        # One cheap pass: a sum is not finite if a value is not. It may also overflow.
        if not torch.isfinite(values.sum()):
            check_features(values.numpy(), first_row=rows.start)
        yield rows, values


def row_parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cover the rows, so many at a time that scores [n, columns] stay small."""
    return row_chunks(rows, max(1, _SCORES // columns))


def _chunks(features: np.ndarray | NpyFile, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows as tensors, each valid until the next is asked for."""
    chunks = list(row_chunks(len(features), size))
    flags = features.flags if isinstance(features, np.ndarray) else None
    if file_of(features) is None and flags is not None and flags.c_contiguous and flags.writeable:
        for rows in chunks:
            yield rows, torch.from_numpy(features[rows])
        return
    # While one buffer is computed on, the other one is filled: NumPy copies without the lock.
    dtype = features.dtype.newbyteorder("=") if features.dtype.kind == "f" else np.float32
    buffers = [np.empty((size, features.shape[1]), dtype) for _ in chunks[:2]]

    def read(number: int) -> np.ndarray:
        part = features[chunks[number]]
        buffer = buffers[number % 2][: len(part)]
        np.copyto(buffer, part, casting="unsafe")  # 64-bit integers to float32
        return buffer

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, 0)
        for number, rows in enumerate(chunks):
            chunk = following.result()
            if number + 1 < len(chunks):
                following = reader.submit(read, number + 1)
            yield rows, torch.from_numpy(chunk)
