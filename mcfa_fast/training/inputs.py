"""What the trainer is given, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.training.features import RawFeatures

__all__ = ["check_training_data"]


def check_training_data(
    features: Any, labels: Any, semantics: Any
) -> tuple[RawFeatures, Tensor, Tensor]:
    """Features, int64 labels [n] and float32 descriptors [C, A] in main memory.

    Memory-mapped features are read once from end to end, but stay where they are.

    Raises:
        TypeError: If labels are not integers, or features or descriptors are not numbers.
        ValueError: If shapes disagree, a value is not finite, or a label is out of range.
    """
    features = RawFeatures(_matrix("features", features))
    semantics = RawFeatures(_matrix("semantics", semantics))
    for name, matrix in (("features", features), ("semantics", semantics)):
        _check_finite(name, matrix)
    labels = _tensor("labels", labels)
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    labels = labels.to("cpu", torch.int64)
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels: expected one per row of features [{features.shape[0]}], "
            f"got {list(labels.shape)}"
        )
    classes = semantics.shape[0]
    lowest, highest = labels.aminmax()
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"labels: expected 0..{classes - 1} (one row of semantics each), "
            f"got {lowest}..{highest}"
        )
    return features, labels, semantics.gather(slice(None))


def _matrix(name: str, values: Any) -> Tensor | np.memmap:
    matrix = values if _is_mapped(values) else _tensor(name, values)
    if matrix.dtype in (torch.bool, np.bool_) or (
        matrix.dtype.is_complex if isinstance(matrix, Tensor) else matrix.dtype.kind == "c"
    ):
        raise TypeError(f"{name}: expected real numbers, got {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name}: expected a non-empty matrix, got shape {list(matrix.shape)}")
    return matrix


def _is_mapped(values: Any) -> bool:
    return isinstance(values, np.memmap) and values.dtype.kind in "biuf"


def _check_finite(name: str, matrix: RawFeatures) -> None:
    first = 0
    for chunk in matrix.chunks():
        finite = chunk.isfinite().all(1)
        if not finite.all():
            row = first + int(finite.logical_not().nonzero()[0])
            raise ValueError(f"{name}: row {row} has a value that is not finite (in float32)")
        first += len(chunk)


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    # A tensor cannot share the memory of an array that is read-only or has unusual strides.
    if not (array.flags.writeable and array.flags.c_contiguous and array.dtype.isnative):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)
