"""Convex combination of semantic embeddings."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import KeepLargest, UnitRows, affine
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.solved import PreparedData, SolvedSystem

__all__ = ["ConSE", "ConSEConfig"]


class ConSEConfig(SystemConfig):
    """Options of ConSE."""

    penalty: float = Field(
        1.0,
        gt=0,
        description="Weight of half the squared norm in the logistic regression (scikit-learn's "
        "1 / C).",
    )
    top: int = Field(
        10, ge=1, description="How many seen classes are combined (T); at most all are."
    )


class ConSE(SolvedSystem):
    """The mean of the likeliest seen classes' descriptors; the class of highest cosine to it.

    A logistic regression on the seen classes gives probabilities; the `top` highest of a row, made
    to sum to 1, weight the descriptors.

    Attributes:
        weights_, intercepts_: the logistic regression's linear functions, [F, S] and [S].
        seen_: descriptors [S, A] of the seen classes.

    Source:
        Norouzi et al., "Zero-shot learning by convex combination of semantic embeddings", 2014,
        Eqs. 3 and 4.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("conse", options={"top": 3})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "conse"
    Config = ConSEConfig
    config: ConSEConfig
    dtype = np.float32
    learned = ("weights_", "intercepts_", "seen_")

    def statistics(self, data: PreparedData) -> SeenClassifier:
        return SeenClassifier(data, "softmax")

    def fit_prepared(self, data: SeenClassifier) -> None:
        self.weights_, self.intercepts_ = data.fit(self.config.penalty)
        self.seen_ = data.semantics

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        # Dividing by the sum of the probabilities that are kept would not change the cosine.
        return (
            affine(self.weights_, self.intercepts_),
            nn.Softmax(dim=1),
            KeepLargest(min(self.config.top, len(self.seen_))),
            affine(self.seen_),
            UnitRows(),
            affine(s.T),
        )
