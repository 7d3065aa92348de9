"""Accuracy measures of zero-shot classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix, recall_score

__all__ = ["ClassResult", "class_table", "confusion", "harmonic_mean", "mean_class_accuracy"]


@dataclass(frozen=True)
class ClassResult:
    """One row of a per-class table.

    Attributes:
        index: class index.
        name: class name.
        count: number of test rows of the class.
        correct: number of those predicted as the class.
    """

    index: int
    name: str
    count: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """Share of the class's rows that were predicted as it, in 0..1; None without rows."""
        return self.correct / self.count if self.count else None


def mean_class_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean over the classes present in `labels` of the class's top-1 accuracy.

    Every class counts the same, however many rows it has. This is the macro-averaged recall that
    zero-shot work reports (Xian et al., "Zero-shot learning: a comprehensive evaluation of the
    good, the bad and the ugly", 2018, Eq. 9).

    Args:
        labels: true class indices [N], N > 0.
        predictions: predicted class indices [N]; classes that are not in `labels` are allowed.

    Returns:
        Accuracy in 0..1.

    Raises:
        ValueError: on no rows, different lengths or values that are not integers.

    Example:
        >>> mean_class_accuracy([0, 0, 0, 1], [0, 0, 2, 1])
        0.8333333333333333
    """
    labels, predictions = _check_pair(labels, predictions)
    if labels.size == 0:
        raise ValueError("labels: expected at least one row, got none")
    present = np.unique(labels)
    return float(recall_score(labels, predictions, labels=present, average="macro"))


def harmonic_mean(seen: float, unseen: float) -> float:
    """Harmonic mean 2·S·U / (S + U) of two accuracies; 0 when both are 0.

    The headline number of generalized zero-shot classification: S is the accuracy on test images
    of seen classes, U on images of unseen classes, both with all classes as candidates.

    Raises:
        ValueError: when an accuracy is negative or not a number.

    Example:
        >>> harmonic_mean(0.6, 0.3)
        0.4
    """
    for name, value in (("seen", seen), ("unseen", unseen)):
        if not value >= 0:
            raise ValueError(f"{name}: expected an accuracy of 0 or more, got {value}")
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


def confusion(labels: ArrayLike, predictions: ArrayLike, classes: ArrayLike) -> np.ndarray:
    """Confusion counts [K, K]: rows are true classes, columns predicted ones, in `classes` order.

    Unlike scikit-learn's function, which drops them silently, rows whose label or prediction is
    not in `classes` are an error.

    Raises:
        ValueError: on repeated `classes`, or labels or predictions outside of them.

    Example:
        >>> confusion([4, 4, 7], [4, 7, 7], classes=[4, 7]).tolist()
        [[1, 1], [0, 1]]
    """
    labels, predictions = _check_pair(labels, predictions)
    classes = _check_indices("classes", classes)
    if len(np.unique(classes)) != len(classes):
        raise ValueError("classes: expected distinct class indices, got repeated ones")
    for name, values in (("labels", labels), ("predictions", predictions)):
        outside = np.setdiff1d(values, classes)
        if outside.size:
            raise ValueError(f"{name}: expected only classes in `classes`, got {outside[0]}")
    if labels.size == 0:
        return np.zeros((len(classes), len(classes)), dtype=np.int64)
    return confusion_matrix(labels, predictions, labels=classes).astype(np.int64)


def class_table(
    matrix: ArrayLike, classes: ArrayLike, class_names: tuple[str, ...]
) -> tuple[ClassResult, ...]:
    """Per-class counts and accuracies, read off a confusion matrix.

    Args:
        matrix: confusion counts [K, K] as :func:`confusion` gives them.
        classes: class indices [K] of its rows.
        class_names: names of all classes, looked up by class index.

    Example:
        >>> [row.accuracy for row in class_table([[1, 1], [0, 1]], [0, 1], ("pond", "port"))]
        [0.5, 1.0]
    """
    matrix = np.asarray(matrix)
    return tuple(
        ClassResult(
            index=int(index),
            name=class_names[index],
            count=int(matrix[row].sum()),
            correct=int(matrix[row, row]),
        )
        for row, index in enumerate(_check_indices("classes", classes))
    )


def _check_pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both arguments as int64 vectors of one length, or a ValueError that says what is wrong."""
    labels = _check_indices("labels", labels)
    predictions = _check_indices("predictions", predictions)
    if len(labels) != len(predictions):
        raise ValueError(
            f"predictions: expected one per label ({len(labels)}), got {len(predictions)}"
        )
    return labels, predictions


def _check_indices(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name}: expected a vector, got shape {values.shape}")
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integer class indices, got {values.dtype}")
    return values.astype(np.int64)
