"""Convex combination of semantic embeddings."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.checks_old import check_positive
from mcfa_fast.systems.preparation_old import unit_rows
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["ConSE"]


class ConSE(Baseline):
    """The mean of the likeliest seen classes' descriptors; the class of highest cosine to it.

    A logistic regression on the seen classes gives probabilities; the `top` highest of a row, made
    to sum to 1, weight the descriptors.

    Args:
        penalty: weight of half the squared norm in the logistic regression, above 0 (scikit-learn's
            1 / C).
        top: how many seen classes are combined (T), 1 or more; at most all.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        linear_: the logistic regression's linear functions.

    Source:
        Norouzi et al., "Zero-shot learning by convex combination of semantic embeddings", 2014,
        Eqs. 3 and 4.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = ConSE().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "conse"
    dtype = np.float32

    def __init__(
        self,
        *,
        penalty: float = 1.0,
        top: int = 10,
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.penalty = penalty
        self.top = top
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> SeenClassifier:
        return SeenClassifier(data, "softmax")

    def _fit(self, data: SeenClassifier) -> None:
        check_positive(top=self.top)
        self.linear_ = data.fit(self.penalty)

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        probabilities = softmax(self.linear_(x), axis=1)
        seen = self.semantics_[self.seen_classes_]
        if self.top < len(seen):
            least = np.partition(probabilities, -self.top, axis=1)[:, -self.top, None]
            probabilities = np.where(probabilities >= least, probabilities, 0)
        # Dividing by their sum would not change the cosine.
        return unit_rows(probabilities @ seen) @ s.T
