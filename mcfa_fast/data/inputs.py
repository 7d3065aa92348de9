"""What callers pass to a classifier, checked and as the arrays that it works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.data.checks import (
    check_class_names,
    check_features,
    check_indices,
    check_labels,
    check_semantics,
)
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.npy import NpyFile, file_of

__all__ = [
    "TrainingData",
    "as_array",
    "as_class_names",
    "as_features",
    "as_labels",
    "as_semantics",
    "check_columns",
    "column_names",
    "resolve_candidates",
    "training_data",
]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images of the seen classes and the descriptors of all classes, checked.

    Attributes:
        features: [n, F] raw visual features; their values are checked when they are first read.
        labels: int64 [n], class index of every row, in 0..C-1.
        semantics: float32 [C, A], the descriptor of every class.
        unseen_classes: int64 [U], ascending indices of the classes to be predicted that have no
            row.
        class_names: C distinct names.
    """

    features: FeatureRows
    labels: np.ndarray
    semantics: Tensor
    unseen_classes: np.ndarray
    class_names: tuple[str, ...]

    @cached_property
    def seen_classes(self) -> np.ndarray:
        """int64 [S], ascending indices of the classes that have rows."""
        return np.unique(self.labels)

    def without(self, classes: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> TrainingData:
        """The seen classes alone, numbered anew, as a problem of their own.

        Args:
            classes: int64 [S], index here of every class there.
            rows: which rows to train on.
            labels: class there [m] of each of these rows.
        """
        local = np.arange(len(classes))
        return TrainingData(
            features=self.features.take(rows),
            labels=labels,
            semantics=self.semantics[torch.from_numpy(classes)],
            unseen_classes=np.setdiff1d(local, labels),
            class_names=tuple(self.class_names[index] for index in classes),
        )


def training_data(
    features: Any,
    labels: Any,
    semantics: Any,
    class_names: Sequence[str] | None,
    unseen_classes: Any,
    *,
    widths: tuple[int, int] | tuple[None, None] = (None, None),
) -> TrainingData:
    """Everything that can be wrong is found here, before a training that may take long.

    Args:
        features, labels, semantics, class_names, unseen_classes: as given to ``fit``.
        widths: expected columns of features and semantics, if there are any expectations.
    """
    features = FeatureRows.of(features)
    _check_width("features", features.width, widths[0])
    semantics = as_semantics(semantics, widths[1])
    classes = len(semantics)
    labels = as_labels(labels, len(features), classes)
    return TrainingData(
        features,
        labels,
        semantics,
        _as_unseen_classes(unseen_classes, labels, classes),
        as_class_names(class_names, classes),
    )


def as_features(
    values: Any, width: int | None = None, *, scan: bool = True
) -> np.ndarray | NpyFile:
    """Features as a finite array [N, F], N > 0, floating unless it stays in a file.

    Args:
        values: what the caller passed.
        width: expected columns F.
        scan: whether to look for values that are not finite; False where that is done later.
    """
    features = values if isinstance(values, NpyFile) else as_array(values)
    check_features(features, values=scan)
    _check_width("features", features.shape[1], width)
    is_computable = features.dtype.isnative and features.dtype.kind == "f"
    if isinstance(features, np.ndarray) and file_of(features) is None and not is_computable:
        features = features.astype(np.float32)
    return features


def column_names(values: Any) -> tuple[str, ...] | None:
    """Names of the columns of a data frame; None for what has none."""
    columns = getattr(values, "columns", None)
    if columns is None or not all(isinstance(name, str) for name in columns):
        return None
    return tuple(columns)


def check_columns(values: Any, expected: Sequence[str] | None) -> None:
    """Check that a data frame has the expected columns in their order.

    Raises:
        ValueError: when it has not; it names the first that differs.
    """
    names = column_names(values)
    if names is None or expected is None or names == tuple(expected):
        return
    for index, (name, other) in enumerate(zip_longest(names, expected)):
        if name != other:
            raise ValueError(
                f"features: expected the columns of fit() in their order, where column {index} is "
                f"{other!r}, got {name!r}"
            )


def as_labels(values: Any, rows: int, classes: int) -> np.ndarray:
    """Labels as int64 [rows], each in 0..classes-1."""
    return check_labels(as_array(values), rows, classes)


def as_semantics(values: Any, width: int | None = None) -> Tensor:
    """Descriptors as a finite float32 tensor [C, A]."""
    semantics = as_array(values)
    semantics = check_semantics(semantics, len(semantics) if semantics.ndim else 0)
    _check_width("semantics", semantics.shape[1], width)
    # A copy: descriptors are kept, and must not change with the caller's array.
    return torch.tensor(semantics)


def as_class_names(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Distinct class names, made up when None."""
    if names is None:
        return tuple(f"class_{index}" for index in range(classes))
    names = check_class_names(names)
    if len(names) != classes:
        raise ValueError(f"class_names: expected {classes}, one per class, got {len(names)}")
    return names


def resolve_candidates(
    candidates: Sequence[int | str] | np.ndarray, classes: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Class indices of candidates given as indices or names, which must be among `classes`."""
    by_name = {name: index for index, name in enumerate(names)}
    unknown = [item for item in candidates if isinstance(item, str) and item not in by_name]
    if unknown:
        raise ValueError(f"candidates: there is no class {unknown[0]!r}")
    resolved = check_indices(
        [by_name[item] if isinstance(item, str) else item for item in candidates],
        "candidates",
        len(names),
    )
    if not resolved.size:
        raise ValueError("candidates: expected at least one class, got none")
    foreign = np.setdiff1d(resolved, classes)
    if foreign.size:
        raise ValueError(
            f"candidates: {names[foreign[0]]!r} was neither a seen nor an unseen class in fit()"
        )
    return resolved


def _as_unseen_classes(values: Any, labels: np.ndarray, classes: int) -> np.ndarray:
    """Ascending indices of the unseen classes; None is all without a label."""
    without = np.setdiff1d(np.arange(classes), labels)
    if values is None:
        if not without.size:
            raise ValueError(
                "labels: every class has training rows; expected at least one unseen class (a row "
                "of semantics that no label refers to)"
            )
        return without
    unseen = np.sort(check_indices(as_array(values), "unseen_classes", classes))
    if not unseen.size:
        raise ValueError("unseen_classes: expected at least one class, got none")
    seen = np.setdiff1d(unseen, without)
    if seen.size:
        raise ValueError(f"unseen_classes: class {seen[0]} has training rows")
    return unseen


def _check_width(name: str, width: int, expected: int | None) -> None:
    if expected is not None and width != expected:
        raise ValueError(f"{name}: expected {expected} columns, got {width}")


def as_array(values: Any) -> np.ndarray:
    """As an array, also of a tensor on any device."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asanyarray(values)
