"""Embarrassingly simple zero-shot learning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import affine
from mcfa_fast.systems.solved import PreparedData, SolvedSystem
from mcfa_fast.systems.spectrum import Spectrum, class_sums

__all__ = ["ESZSL", "ESZSLConfig"]


class ESZSLConfig(SystemConfig):
    """Options of ESZSL."""

    visual_penalty: float = Field(1.0, gt=0, description="Penalty γ on the visual side.")
    semantic_penalty: float = Field(1.0, gt=0, description="Penalty λ on the semantic side.")


class _Statistics(NamedTuple):
    spectrum: Spectrum
    moment: np.ndarray  # Q^T x^T Y [F, S]
    semantics: np.ndarray


class ESZSL(SolvedSystem):
    """Bilinear compatibility ``x W s^T`` in closed form.

    ``W = (x^T x + γ I)^-1 x^T Y S (S^T S + λ I)^-1`` with Y [n, S] being 1 for a row's class and -1
    for the others.

    Attributes:
        weights_: W [F, A].

    Source:
        Romera-Paredes and Torr, "An embarrassingly simple approach to zero-shot learning", 2015,
        Eq. 5.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("eszsl", options={"visual_penalty": 10.0})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "eszsl"
    Config = ESZSLConfig
    config: ESZSLConfig
    learned = ("weights_",)

    def statistics(self, data: PreparedData) -> _Statistics:
        spectrum = Spectrum.of(data.features)
        sums = class_sums(data.features, data.labels, len(data.semantics))
        moment = spectrum.vectors.T @ (2 * sums - data.features.sum(axis=0)).T
        return _Statistics(spectrum, moment, data.semantics)

    def fit_prepared(self, data: _Statistics) -> None:
        s, config = data.semantics, self.config
        # S (S^T S + λ I)^-1 = (S S^T + λ I)^-1 S: as many unknowns as classes, not as attributes.
        right = np.linalg.solve(s @ s.T + config.semantic_penalty * np.eye(len(s)), s)
        left = data.moment / (data.spectrum.values + config.visual_penalty)[:, None]
        self.weights_ = (data.spectrum.vectors @ left) @ right

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        return (affine(self.weights_ @ s.T),)
