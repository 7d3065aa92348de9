"""Indirect attribute prediction."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.attributes import BinaryAttributes
from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import LogOdds, affine
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.solved import PreparedData, SolvedSystem

__all__ = ["IAP", "IAPConfig"]

# A row that is certain to be of a seen class would else rule out every class that differs in one
# attribute, and the unseen classes could not be told apart.
_SMALLEST = 1e-6


class IAPConfig(SystemConfig):
    """Options of indirect attribute prediction."""

    penalty: float = Field(
        1.0, gt=0, description="Weight of half the squared norm in the logistic regression."
    )


class IAP(SolvedSystem):
    """Seen-class probabilities give attribute probabilities, which give unseen classes.

    ``p(a_m | x) = Σ_k p(a_m | k) p(k | x)`` over the seen classes k, from a logistic regression
    among them; then as in direct attribute prediction. Attribute probabilities are kept within
    1e-6 and 1 - 1e-6.

    Attributes:
        weights_, intercepts_: the logistic regression's linear functions, [F, S] and [S].
        table_: attributes [S, M] of the seen classes.
        threshold_, kept_, prior_: how descriptors become attributes, see
            :class:`~mcfa_fast.systems.attributes.BinaryAttributes`.

    Source:
        Lampert et al., "Learning to detect unseen object classes by between-class attribute
        transfer", 2009, Eqs. 3 and 4.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("iap", options={"penalty": 0.1})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "iap"
    Config = IAPConfig
    config: IAPConfig
    dtype = np.float32
    unit_semantics = False
    learned = ("weights_", "intercepts_", "table_", "threshold_", "kept_", "prior_")

    def statistics(self, data: PreparedData) -> SeenClassifier:
        return SeenClassifier(data, "softmax")

    def fit_prepared(self, data: SeenClassifier) -> None:
        attributes = BinaryAttributes.of(data.semantics)
        self.threshold_, self.kept_, self.prior_ = attributes
        self.table_ = attributes(data.semantics)
        self.weights_, self.intercepts_ = data.fit(self.config.penalty)

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        attributes = BinaryAttributes(self.threshold_, self.kept_, self.prior_)
        return (
            affine(self.weights_, self.intercepts_),
            nn.Softmax(dim=1),
            LogOdds(self.table_, _SMALLEST),
            attributes.class_layer(s),
        )
