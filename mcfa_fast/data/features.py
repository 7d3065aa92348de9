"""Features as rows that are gathered when they are needed, from memory or from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.npy import NpyFile, file_of
from mcfa_fast.storage.identity import Fingerprint, fingerprint

__all__ = ["FeatureRows"]

_ROWS_PER_CHUNK, _VALUES_PER_CHUNK = 8192, 2**24


class FeatureRows:
    """Rows [n, F] of a feature matrix, which stays where it is: a view, not a copy.

    The matrix is a tensor, an array, or a file of any size (an :class:`~mcfa_fast.data.npy.NpyFile`
    or a memory map). That its values are finite in float32 is checked when all rows are read for
    the first time, in :meth:`chunks`, and not again.

    Args:
        matrix: [N, F] real numbers.
        rows: Which rows of it, in which order; None is all of them.
        checked: Whether the values are known to be finite in float32.

    Raises:
        TypeError: If the matrix is not one of real numbers.
        DatasetError: If it is not [N, F] with N, F >= 1.

    Example:
        >>> features = FeatureRows(np.arange(8.0).reshape(4, 2)).take(np.array([3, 1]))
        >>> features.shape, features.gather(slice(None)).tolist()
        ((2, 2), [[6.0, 7.0], [2.0, 3.0]])
    """

    def __init__(
        self,
        matrix: Tensor | np.ndarray | NpyFile,
        rows: np.ndarray | None = None,
        *,
        checked: bool = False,
    ) -> None:
        self._matrix = _checked_matrix(matrix)
        self._rows = rows
        self._finite = checked
        self._watched: Fingerprint | None = None
        self._fingerprint: str | None = None

    @classmethod
    def of(cls, values: Any) -> FeatureRows:
        """``values`` themselves if they are feature rows, else a view of them."""
        return values if isinstance(values, cls) else cls(values)

    def __len__(self) -> int:
        return len(self._matrix) if self._rows is None else len(self._rows)

    @property
    def width(self) -> int:
        """Number of features F."""
        return self._matrix.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.width

    @property
    def in_memory(self) -> torch.device | None:
        """The device whose memory holds the matrix; None where it is a file."""
        if isinstance(self._matrix, Tensor):
            return self._matrix.device
        return None if file_of(self._matrix) else torch.device("cpu")

    def take(self, rows: np.ndarray) -> FeatureRows:
        """A view of some of these rows [m], in the given order."""
        view = FeatureRows.__new__(FeatureRows)
        view.__dict__ = {**self.__dict__, "_watched": None, "_fingerprint": None}
        view._rows = rows if self._rows is None else self._rows[rows]
        return view

    def gather(self, rows: Tensor | np.ndarray | slice) -> Tensor:
        """Some of the rows as a float32 tensor in main memory, not to be written to."""
        if isinstance(rows, Tensor):
            rows = rows.numpy()
        if self._rows is not None:
            rows = self._rows[rows]
        if isinstance(self._matrix, Tensor):
            index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
            return self._matrix[index].to("cpu", torch.float32)
        with np.errstate(over="ignore"):  # infinities are found by the check
            if isinstance(self._matrix, NpyFile):
                return torch.from_numpy(np.asarray(self._matrix[rows], dtype=np.float32))
            # A copy, also of a slice: PyTorch cannot share read-only memory.
            return torch.from_numpy(np.array(self._matrix[rows], dtype=np.float32))

    def chunks(self, size: int | None = None) -> Iterator[Tensor]:
        """All rows in order, as float32 tensors in main memory.

        Args:
            size: How many at a time; None is 8192, or fewer where they are long.

        Raises:
            DatasetError: At the first row with a value that is not finite, the first time that
                the rows are read.
        """
        if size is None:
            size = min(_ROWS_PER_CHUNK, max(1, _VALUES_PER_CHUNK // self.width))
        watched, self._watched = self._watched, None
        pieces = self._pieces(size)
        yield from pieces if watched is None else watched.watch(pieces)
        self._finite = True
        if watched is not None:
            self._fingerprint = watched.text

    def map(self, function: Callable[[Tensor], Tensor], size: int | None = None) -> Tensor:
        """``function`` of all rows [n, ...], computed of :meth:`chunks` one after the other.

        Unlike a list of results that is joined in the end, this takes no memory twice, nor leaves
        results between the chunks, which would keep C's allocator from using their place again.

        Args:
            function: Acts on each row by itself.
            size: See :meth:`chunks`.
        """
        result, start = None, 0
        for chunk in self.chunks(size):
            part = function(chunk)
            if result is None:
                result = part.new_empty(len(self), *part.shape[1:])
            result[start : start + len(part)] = part
            start += len(part)
        if result is None:
            raise DatasetError("features: expected at least one row, got none")
        return result

    def watch(self) -> None:
        """Take the fingerprint when all rows are read next, so as not to read them twice."""
        if self._fingerprint is None:
            self._watched = Fingerprint()

    @property
    def fingerprint(self) -> str:
        """A text that tells these rows from others, see
        :class:`~mcfa_fast.storage.identity.Fingerprint`; reads them, unless they were watched."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.chunks())
        return self._fingerprint

    def array(self, dtype: Any = np.float32) -> np.ndarray:
        """All rows as one array in main memory."""
        wanted = torch.from_numpy(np.empty(0, dtype)).dtype
        return self.map(lambda chunk: chunk.to(wanted)).numpy()

    def _pieces(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            chunk = self.gather(slice(start, start + size))
            if not self._finite:
                self._check(chunk, start)
            yield chunk

    def _check(self, chunk: Tensor, start: int) -> None:
        # One cheap pass: a sum is not finite if a value is not. It may also overflow.
        if torch.isfinite(chunk.sum()):
            return
        finite = chunk.isfinite().all(dim=1)
        if not finite.all():
            row = start + int(finite.logical_not().nonzero()[0])
            row = row if self._rows is None else int(self._rows[row])
            file = file_of(self._matrix)
            where = "" if file is None else f" ({file})"
            raise DatasetError(f"features{where}: NaN or infinity in row {row} (in float32)")


def _checked_matrix(values: Any) -> Tensor | np.ndarray | NpyFile:
    if isinstance(values, Tensor):
        matrix: Any = values.detach()
    else:
        matrix = values if isinstance(values, NpyFile) else np.asanyarray(values)
    if isinstance(matrix, Tensor):
        real = not (matrix.dtype.is_complex or matrix.dtype == torch.bool)
    else:
        real = matrix.dtype.kind in "fiu"
    if not real:
        raise TypeError(f"features: expected real numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DatasetError(
            f"features: expected shape [N, F] with N, F >= 1, got {tuple(matrix.shape)}"
        )
    return matrix
