"""Checks of the arrays of a dataset. Each raises one :class:`DatasetError` naming the field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.npy import NpyFile, file_of

_SCAN_BYTES = 16 * 2**20


def check_features(features: Any, *, values: bool = True, first_row: int = 0) -> None:
    """Check that ``features`` is an array ``[N, F]`` of real numbers with ``N, F >= 1``.

    The values are read in blocks of rows, so that a file is never copied as a whole.

    Args:
        features: A numpy array or an :class:`~mcfa_fast.data.npy.NpyFile`.
        values: Check that the values are finite in float32, too.
        first_row: Number of the first row in an error, where ``features`` is a part of more.
    """
    if not isinstance(features, np.ndarray | NpyFile):
        raise TypeError(f"features: expected a numpy array, got {type(features).__name__}")
    file = file_of(features)
    what = "features" if file is None else f"features ({file})"
    if features.ndim != 2 or 0 in features.shape:
        raise DatasetError(f"{what}: expected shape [N, F] with N, F >= 1, got {features.shape}")
    if features.dtype.kind not in "fiu":
        raise DatasetError(f"{what}: expected real numbers, got dtype {features.dtype}")
    if not values or features.dtype.kind in "iu":
        return
    step = max(1, _SCAN_BYTES // (features.shape[1] * features.dtype.itemsize))
    for start in range(0, len(features), step):
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(features[start : start + step], dtype=np.float32)
            # One cheap pass: a sum is not finite if a value is not. It may also overflow.
            total = block.sum()
        if not np.isfinite(total):
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                row = first_row + start + int(finite.argmin())
                raise DatasetError(f"{what}: NaN or infinity in row {row} (in float32)")


def check_class_names(class_names: Any) -> tuple[str, ...]:
    """Return ``class_names`` as a tuple of distinct, non-empty strings."""
    if isinstance(class_names, str) or not isinstance(class_names, Iterable):
        raise DatasetError(f"class_names: expected a list of strings, got {class_names!r:.60}")
    names = tuple(class_names)
    if not names:
        raise DatasetError("class_names: expected at least one class, got none")
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise DatasetError(f"class_names: expected non-empty strings, got {name!r:.60}")
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise DatasetError(f"class_names: {name!r:.60} has half of a surrogate pair")
        if name in seen:
            raise DatasetError(f"class_names: {name!r} occurs more than once")
        seen.add(name)
    return names


def check_labels(labels: Any, rows: int, classes: int) -> np.ndarray:
    """Return ``labels`` as int64 ``[rows]``, every value in ``0..classes-1``."""
    labels = np.asarray(labels)
    if labels.shape != (rows,):
        raise DatasetError(
            f"labels: expected shape ({rows},), one label per row of features, got {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DatasetError(f"labels: expected integers, got dtype {labels.dtype}")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise DatasetError(
            f"labels: row {row} has label {labels[row]}, but classes are 0..{classes - 1}"
        )
    return labels.astype(np.int64)


def check_semantics(semantics: Any, classes: int) -> np.ndarray:
    """Return ``semantics`` as finite float32 ``[classes, A]`` with ``A >= 1``."""
    semantics = np.asarray(semantics)
    if semantics.dtype.kind not in "fiub":
        raise DatasetError(f"semantics: expected numbers, got dtype {semantics.dtype}")
    if semantics.ndim != 2 or len(semantics) != classes or semantics.shape[1] == 0:
        raise DatasetError(
            f"semantics: expected shape ({classes}, A), one descriptor per class, "
            f"got {semantics.shape}"
        )
    with np.errstate(over="ignore"):
        semantics = np.ascontiguousarray(semantics, dtype=np.float32)
    finite = np.isfinite(semantics).all(axis=1)
    if not finite.all():
        raise DatasetError(
            f"semantics: a value of class {int(finite.argmin())} is NaN, infinite "
            "or too large for float32"
        )
    return semantics


def check_indices(values: Any, what: str, size: int) -> np.ndarray:
    """Return ``values`` as int64 ``[n]``: distinct numbers in ``0..size-1``, order kept."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = None
    if array is not None and not isinstance(values, np.ndarray) and array.ndim == 1:
        if any(isinstance(value, bool | np.bool_) for value in values):  # True is no 1
            array = None
    if array is None or array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DatasetError(f"{what}: expected a flat list of integers, got {values!r:.60}")
    if array.size and not (array.min() >= 0 and array.max() < size):
        bad = array[(array < 0) | (array >= size)][0]
        raise DatasetError(f"{what}: {bad} is out of range 0..{size - 1}")
    array = array.astype(np.int64)
    values, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise DatasetError(f"{what}: {values[counts > 1][0]} occurs more than once")
    return array


def describe_classes(classes: Iterable[int], class_names: Sequence[str]) -> str:
    """Class names with their indices for a message, at most ten of them."""
    classes = list(classes)
    text = ", ".join(f"{class_names[c]!r} ({c})" for c in classes[:10])
    return text + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
