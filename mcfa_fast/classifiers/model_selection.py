"""Cross-validation by classes, for scikit-learn's tools.

Folds of rows, which those tools make by themselves, leave images of every class in training, so
that the score of a zero-shot classifier on the rest says nothing of classes never seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier
from mcfa_fast.selection.folds import selection_folds

__all__ = ["ClassKFold", "zero_shot_accuracy"]


class ClassKFold:
    """Folds that hold out every class once: all rows of some classes, which play the unseen ones.

    Args:
        n_splits: Number of folds; fewer if there are less than twice as many classes, for one
            held-out class alone is never mistaken for another.
        random_state: Seed of the division.

    Example:
        >>> from sklearn.model_selection import cross_val_score
        >>> from mcfa_fast import ZeroShotClassifier, data, model_selection
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> scores = cross_val_score(
        ...     ZeroShotClassifier("eszsl"),
        ...     digits.features[rows],
        ...     digits.labels[rows],
        ...     params={"semantics": digits.semantics},
        ...     cv=model_selection.ClassKFold(3),
        ...     scoring=model_selection.zero_shot_accuracy,
        ... )
        >>> len(scores)
        3
    """

    def __init__(self, n_splits: int = 5, *, random_state: int = 0) -> None:
        if n_splits < 2:
            raise ValueError(f"n_splits: expected 2 or more, got {n_splits}")
        self.n_splits = n_splits
        self.random_state = random_state

    def split(
        self, X: Any, y: ArrayLike, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows to train on and rows of the held-out classes, for each fold.

        Args:
            X: Not looked at.
            y: Class index [n] of every row.
            groups: Not looked at.

        Raises:
            ValueError: With fewer than 4 classes.
        """
        folds = selection_folds(
            np.asarray(y), self.n_splits, generalized=False, seed=self.random_state
        )
        for fold in folds:
            yield fold.train, fold.test_unseen

    def get_n_splits(self, X: Any = None, y: ArrayLike | None = None, groups: Any = None) -> int:
        """Number of folds."""
        if y is None:
            return self.n_splits
        return min(self.n_splits, len(np.unique(np.asarray(y))) // 2)


def zero_shot_accuracy(
    classifier: ZeroShotClassifier, features: ArrayLike | Tensor, labels: ArrayLike
) -> float:
    """Mean per-class accuracy in 0..1 among the classes that occur: scikit-learn's ``scoring``.

    Held-out classes are told apart from each other, not from classes that have no images at all.

    Args:
        classifier: Fitted.
        features: Raw features [N, F].
        labels: Class index [N] of every row.
    """
    return classifier.score(features, labels, candidates=np.unique(np.asarray(labels)))
