"""Ridge regression from features to descriptors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import UnitRows, affine
from mcfa_fast.systems.solved import PreparedData, SolvedSystem
from mcfa_fast.systems.spectrum import Spectrum, class_sums

__all__ = ["Ridge", "RidgeConfig"]


class RidgeConfig(SystemConfig):
    """Options of ridge regression."""

    penalty: float = Field(1.0, gt=0, description="Penalty α of the squared weights.")


class _Statistics(NamedTuple):
    spectrum: Spectrum
    moment: np.ndarray  # Q^T x^T Y [F, S], with Y the one-hot labels: T = Y S
    semantics: np.ndarray  # S [S, A]
    mean: np.ndarray  # of T's rows [A]


class Ridge(SolvedSystem):
    """Regression from features to descriptors; the class of highest cosine is predicted.

    ``W = (x^T x + α I)^-1 x^T T`` and an intercept, with T [n, A] the descriptors of the rows'
    classes. As the features are centred, the intercept is the mean row of T.

    Attributes:
        weights_: W [F, A].
        intercepts_: [A].

    Source:
        Linear regression as the regressor of Palatucci et al., "Zero-shot learning with semantic
        output codes", 2009, Section 4.3.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("ridge", options={"penalty": 10.0})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "ridge"
    Config = RidgeConfig
    config: RidgeConfig
    learned = ("weights_", "intercepts_")

    def statistics(self, data: PreparedData) -> _Statistics:
        spectrum = Spectrum.of(data.features)
        sums = class_sums(data.features, data.labels, len(data.semantics))
        mean = np.bincount(data.labels) @ data.semantics / len(data.labels)
        return _Statistics(spectrum, spectrum.vectors.T @ sums.T, data.semantics, mean)

    def fit_prepared(self, data: _Statistics) -> None:
        solution = data.moment / (data.spectrum.values + self.config.penalty)[:, None]
        self.weights_ = (data.spectrum.vectors @ solution) @ data.semantics
        self.intercepts_ = data.mean

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        return affine(self.weights_, self.intercepts_), UnitRows(), affine(s.T)
