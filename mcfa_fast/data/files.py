"""Reading single files. Whatever is wrong with one, the error is a :class:`DatasetError`.

The readers of binary formats meet damaged files with exceptions of many types (``zlib.error``,
``struct.error``, ``OverflowError``, ...), so they catch ``Exception``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcfa_fast.data.errors import DatasetError, MissingFileError


def require(path: Path, purpose: str) -> Path:
    """Return ``path`` if it is a file, else raise :class:`MissingFileError`."""
    if not path.is_file():
        raise MissingFileError(f"{path}: missing ({purpose})")
    return path


def choose(files: Sequence[Path], name: str | None, *, option: str, where: Path) -> Path:
    """Return the only file, or the one whose file name or stem is ``name``.

    Args:
        files: The files to choose from.
        name: File name or stem, or None.
        option: Name of the option of :func:`~mcfa_fast.data.load`, for messages.
        where: The folder, for messages.
    """
    if name is None:
        if len(files) == 1:
            return files[0]
    else:
        for file in files:
            if name in (file.name, file.stem):
                return file
    found = ", ".join(sorted(file.stem for file in files)) or "none"
    wanted = f"no {option} {name!r}" if name is not None else f"choose one with {option}=..."
    raise DatasetError(f"{where}: {wanted}; there are: {found}")


def read_npy(path: Path) -> np.ndarray:
    """Read a ``.npy`` file into memory, never unpickling."""
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, ".npy array", error) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path}: expected one .npy array, got an archive")
    return array


def read_npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in a ``.npz`` file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(archive.files)
    except Exception as error:
        raise _unreadable(path, ".npz archive", error) from error


def read_npz(path: Path, name: str) -> np.ndarray:
    """Read one array of a ``.npz`` file, never unpickling."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive[name]
    except Exception as error:
        raise _unreadable(path, f".npz archive with a plain array {name!r}", error) from error


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file, in which no object may have a key twice."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON: {error}") from error


def read_text(path: Path, dtype: type[Any], *, dimensions: int, skip: int = 0) -> np.ndarray:
    """Read a file of numbers in any notation, comma-separated when two-dimensional.

    Args:
        path: The file.
        dtype: Of the numbers; for an integer type they have to be whole.
        dimensions: 1 or 2.
        skip: Lines to skip at the beginning.
    """
    integral = np.issubdtype(dtype, np.integer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an empty file is no more than a warning to numpy
            options: Any = {"ndmin": dimensions, "delimiter": ",", "comments": None}
            values = np.loadtxt(
                path,
                dtype=np.float64 if integral else dtype,
                skiprows=skip,
                encoding="utf-8-sig",
                **options,
            )
    except (OSError, ValueError, Warning) as error:
        raise _unreadable(path, "table of numbers", error) from error
    return whole_numbers(values, str(path)).astype(dtype) if integral else values


def whole_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Turn floating numbers that are whole, and small enough to be exact, into int64."""
    bad = ~((np.abs(values) < 2**53) & (values == np.floor(values)))
    if bad.any():
        raise DatasetError(f"{what}: expected whole numbers, got {values[bad][0]}")
    return values.astype(np.int64)


def to_zero_based(values: np.ndarray, what: str) -> np.ndarray:
    """Turn an array of numbers that count from 1 into int64 ``[n]`` that count from 0."""
    flat = np.asarray(values).ravel()
    if flat.dtype.kind not in "iuf":
        raise DatasetError(f"{what}: expected numbers, got dtype {flat.dtype}")
    bad = ~((flat >= 1) & (flat < 2**53) & (flat == np.floor(flat)))
    if bad.any():
        raise DatasetError(f"{what}: expected whole numbers from 1 up, got {flat[bad][0]}")
    return flat.astype(np.int64) - 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs more than once in an object")
    return content


def _unreadable(path: Path, expected: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read as a {expected}; it is damaged, cut short or of another kind "
        f"(pickled objects are never loaded): {error}"
    )
