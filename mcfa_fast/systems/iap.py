"""Indirect attribute prediction."""

from __future__ import annotations

import numpy as np
from scipy.special import logit, softmax

from mcfa_fast.systems.attributes import BinaryAttributes
from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["IAP"]

# A row that is certain to be of a seen class would else rule out every class that differs in one
# attribute, and the unseen classes could not be told apart.
_SMALLEST = 1e-6


class IAP(Baseline):
    """Seen-class probabilities give attribute probabilities, which give unseen classes.

    ``p(a_m | x) = Σ_k p(a_m | k) p(k | x)`` over the seen classes k, from a logistic regression
    among them; then as in direct attribute prediction. Attribute probabilities are kept within
    1e-6 and 1 - 1e-6.

    Args:
        penalty: weight of half the squared norm in the logistic regression, above 0.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        attributes_: how descriptors become attributes.
        linear_: the logistic regression's linear functions.

    Source:
        Lampert et al., "Learning to detect unseen object classes by between-class attribute
        transfer", 2009, Eqs. 3 and 4.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = IAP().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "iap"
    dtype = np.float32
    unit_semantics = False

    def __init__(
        self, *, penalty: float = 1.0, task: Task = "zsl", calibration: float | None = None
    ) -> None:
        self.penalty = penalty
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> SeenClassifier:
        return SeenClassifier(data, "softmax")

    def _fit(self, data: SeenClassifier) -> None:
        self.attributes_ = BinaryAttributes.of(data.semantics)
        self.linear_ = data.fit(self.penalty)

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        table = self.attributes_(self.semantics_[self.seen_classes_])
        probabilities = softmax(self.linear_(x), axis=1).astype(np.float64) @ table
        log_odds = logit(probabilities.clip(_SMALLEST, 1 - _SMALLEST))
        return self.attributes_.class_scores(log_odds, s)
