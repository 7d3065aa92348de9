"""Arrays that stay in their ``.npy`` file and are read a piece at a time."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from mcfa_fast.data.errors import DatasetError

__all__ = ["NpyFile", "file_of"]

_PIECE = 64 * 2**20  # bytes per system call, between which an interrupt is noticed
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyFile:
    """A read-only array [N, ...] in a ``.npy`` file, whose rows are read when they are asked for.

    Unlike a memory map it takes no address space, so a file may be larger than a process's limit,
    and a file that is cut short while it is read is an error rather than the end of the process.
    Any number of threads may read. Copies share the open file; a pickle opens it again.

    Args:
        path: The file. It is held open: a file that takes its name later is not seen.

    Raises:
        DatasetError: If it is not a whole ``.npy`` file of plain values. Nothing is unpickled.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.arange(8.0).reshape(4, 2))
        ...     rows = NpyFile(f"{folder}/a.npy")
        >>> rows.shape, rows[np.array([3, 0])].tolist()
        ((4, 2), [[6.0, 7.0], [0.0, 1.0]])
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            file = open(self.path, "rb", buffering=0)
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be opened: {error.strerror}") from error
        with file:
            try:
                version = np.lib.format.read_magic(file)
                if version not in _HEADERS:
                    raise ValueError(f"format {version} is not known")
                shape, fortran_order, dtype = _HEADERS[version](file)
                if dtype.hasobject or any(length < 0 for length in shape):
                    raise ValueError(f"it holds {dtype} of shape {shape}")
            except Exception as error:  # damaged headers raise many kinds
                raise _unreadable(self.path, error) from error
            self.shape, self.dtype = shape, dtype
            self._offset = file.tell()
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._present_state()
        if not shape:
            raise DatasetError(f"{self.path}: expected an array with rows, got a single value")
        if self._state[0] < self._offset + self.nbytes:
            raise _unreadable(self.path, f"{self.nbytes} bytes of values expected")
        # In the order of columns (Fortran's) the file is one line of N values per column.
        values = math.prod(shape[1:])
        self._lines, self._line_shape = (values, ()) if fortran_order else (1, shape[1:])
        self._row_bytes = dtype.itemsize * (1 if fortran_order else values)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"NpyFile({str(self.path)!r}: {list(self.shape)}, {self.dtype})"

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some of the rows as an array of their own; distinct ones are read in the file's order.

        Args:
            rows: A slice, integers of any shape, or one truth value per row.

        Raises:
            IndexError: If a row is not there.
            TypeError: If ``rows`` is of another kind.
            DatasetError: If the file has changed since it was opened, or cannot be read.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._read([(start, max(start, stop))])
            index = np.arange(start, stop, step)
        else:
            index = _integers(rows, len(self))
        distinct, places = np.unique(index, return_inverse=True)
        starts = distinct[np.diff(distinct, prepend=-2) != 1].tolist()
        stops = (distinct[np.diff(distinct, append=-2) != 1] + 1).tolist()
        values = self._read(list(zip(starts, stops, strict=True)))
        if index.shape != distinct.shape or (index != distinct).any():
            values = values[places.reshape(index.shape)]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{self.path}: an array of what is in a file is a copy")
        return np.asarray(self[:], dtype=dtype)

    def __copy__(self) -> NpyFile:
        return self

    def __deepcopy__(self, memo: Any) -> NpyFile:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self.path, self._state)

    def _read(self, runs: list[tuple[int, int]]) -> np.ndarray:
        """Consecutive rows from a first to before a last, run after run."""
        rows = sum(stop - start for start, stop in runs)
        content = np.empty(self._lines * rows * self._row_bytes, np.uint8)
        place = 0
        for line in range(self._lines if rows else 0):
            first = self._offset + line * len(self) * self._row_bytes
            for start, stop in runs:
                end = place + (stop - start) * self._row_bytes
                self._fill(content.data[place:end], first + start * self._row_bytes)
                place = end
        if self._present_state() != self._state:
            raise self._changed()
        values = content.view(self.dtype)
        if self._line_shape == self.shape[1:]:
            return values.reshape(rows, *self.shape[1:])
        return values.reshape(*self.shape[:0:-1], rows).T

    def _fill(self, memory: memoryview, offset: int) -> None:
        while memory:
            try:
                count = os.preadv(self._descriptor, [memory[:_PIECE]], offset)
            except OSError as error:
                raise DatasetError(f"{self.path}: cannot be read: {error.strerror}") from error
            if count == 0:
                raise self._changed()
            memory, offset = memory[count:], offset + count

    def _present_state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _changed(self) -> DatasetError:
        return DatasetError(f"{self.path}: was changed or cut short since it was opened")


def file_of(values: Any) -> str | None:
    """The file that an array's values stay in, a :class:`NpyFile`'s or a memory map's, if any.

    Example:
        >>> print(file_of(np.zeros(3)))
        None
    """
    if isinstance(values, NpyFile):
        return str(values.path)
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return str(values.filename or "a memory map")
        values = values.base
    return None


def _integers(rows: Any, count: int) -> np.ndarray:
    index = np.asarray(rows)
    if index.dtype == np.bool_:
        if index.shape != (count,):
            raise IndexError(f"expected one truth value per row ({count}), got {index.shape}")
        return np.flatnonzero(index)
    if index.size == 0 and not isinstance(rows, np.ndarray):
        index = index.astype(np.int64)
    if index.dtype.kind not in "iu" or isinstance(rows, tuple):
        raise TypeError(f"expected rows as a slice or integers, got {rows!r:.60}")
    index = index.astype(np.int64)
    outside = (index < -count) | (index >= count)
    if outside.any():
        raise IndexError(f"row {index[outside].flat[0]} is out of range for {count} rows")
    return np.where(index < 0, index + count, index)


def _opened_again(path: Path, state: tuple[int, int]) -> NpyFile:
    file = NpyFile(path)
    if file._state != state:
        raise file._changed()
    return file


def _unreadable(path: Path, reason: object) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read as a .npy array; it is damaged, cut short or of another kind "
        f"(pickled objects are never loaded): {reason}"
    )
