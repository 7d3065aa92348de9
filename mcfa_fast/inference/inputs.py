"""What callers pass to a classifier, checked and as the arrays that it works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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

__all__ = [
    "TrainingInputs",
    "as_class_names",
    "as_features",
    "as_labels",
    "as_semantics",
    "resolve_candidates",
    "training_inputs",
]


class TrainingInputs(NamedTuple):
    """All that a classifier is fitted on."""

    features: np.ndarray
    labels: np.ndarray
    semantics: Tensor
    class_names: tuple[str, ...]
    unseen_classes: Tensor


def training_inputs(
    features: Any,
    labels: Any,
    semantics: Any,
    class_names: Sequence[str] | None,
    unseen_classes: Any,
    *,
    widths: tuple[int, int] | tuple[None, None] = (None, None),
) -> TrainingInputs:
    """Everything that can be wrong is found here, before a training that may take long.

    Args:
        features, labels, semantics, class_names, unseen_classes: as given to ``fit``.
        widths: expected columns of features and semantics, if there are any expectations.
    """
    features = as_features(features, widths[0])
    semantics = as_semantics(semantics, widths[1])
    classes = len(semantics)
    labels = as_labels(labels, len(features), classes)
    return TrainingInputs(
        features,
        labels,
        semantics,
        as_class_names(class_names, classes),
        _as_unseen_classes(unseen_classes, labels, classes),
    )


def as_features(values: Any, width: int | None = None, *, scan: bool = True) -> np.ndarray:
    """Features as a finite floating array [N, F], N > 0; a memory map stays one.

    Args:
        values: what the caller passed.
        width: expected columns F.
        scan: whether to look for values that are not finite; False where that is done later.
    """
    features = _as_array(values)
    if features.dtype.kind in "iu":
        features = features.astype(np.float32)
    check_features(features, values=scan)
    if width is not None and features.shape[1] != width:
        raise ValueError(f"features: expected {width} columns, got {features.shape[1]}")
    return features


def as_labels(values: Any, rows: int, classes: int) -> np.ndarray:
    """Labels as int64 [rows], each in 0..classes-1."""
    return check_labels(_as_array(values), rows, classes)


def as_semantics(values: Any, width: int | None = None) -> Tensor:
    """Descriptors as a finite float32 tensor [C, A]."""
    semantics = _as_array(values)
    semantics = check_semantics(semantics, len(semantics) if semantics.ndim else 0)
    if width is not None and semantics.shape[1] != width:
        raise ValueError(f"semantics: expected {width} columns, got {semantics.shape[1]}")
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


def _as_unseen_classes(values: Any, labels: np.ndarray, classes: int) -> Tensor:
    """Ascending indices of the unseen classes; None is all without a label."""
    without = np.setdiff1d(np.arange(classes), labels)
    if values is None:
        if not without.size:
            raise ValueError(
                "labels: every class has training rows; expected at least one unseen class (a row "
                "of semantics that no label refers to)"
            )
        return torch.from_numpy(without)
    unseen = np.sort(check_indices(_as_array(values), "unseen_classes", classes))
    if not unseen.size:
        raise ValueError("unseen_classes: expected at least one class, got none")
    seen = np.setdiff1d(unseen, without)
    if seen.size:
        raise ValueError(f"unseen_classes: class {seen[0]} has training rows")
    return torch.from_numpy(unseen)


def _as_array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asanyarray(values)
