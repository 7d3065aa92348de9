"""Semantic autoencoder."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import UnitRows, affine, unit_rows
from mcfa_fast.systems.solved import PreparedData, SolvedSystem
from mcfa_fast.systems.spectrum import Spectrum, class_sums

__all__ = ["SAE", "SAEConfig"]


class SAEConfig(SystemConfig):
    """Options of the semantic autoencoder."""

    penalty: float = Field(1.0, gt=0, description="Weight λ of the encoder's error.")
    direction: Literal["encode", "decode"] = Field(
        "encode", description="Compare W x with descriptors (encode), or x with W^T s (decode)."
    )


class _Statistics(NamedTuple):
    spectrum: Spectrum  # of B / λ = x^T x
    values: np.ndarray  # of A = T^T T, those above 0 [R]
    vectors: np.ndarray  # their eigenvectors [A, R]
    moment: np.ndarray  # U^T T^T x Q [R, F]


class SAE(SolvedSystem):
    """Linear autoencoder whose code is the class descriptor.

    W [A, F] minimises ``|x - T W|² + λ |x W^T - T|²`` with T [n, A] the descriptors of the rows'
    classes. It solves the Sylvester equation ``A W + W B = C`` with ``A = T^T T``,
    ``B = λ x^T x`` and ``C = (1 + λ) T^T x``. Both A and B being symmetric, their eigenvectors
    decouple the equation, once for every λ; and unlike with a general solver, an A of fewer
    classes than attributes and a singular B do no harm.

    Attributes:
        weights_: W [A, F].

    Source:
        Kodirov, Xiang and Gong, "Semantic autoencoder for zero-shot learning", 2017, Eqs. 5 to 8.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("sae", options={"direction": "decode"})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "sae"
    Config = SAEConfig
    config: SAEConfig
    learned = ("weights_",)

    def statistics(self, data: PreparedData) -> _Statistics:
        spectrum = Spectrum.of(data.features)
        counts = np.bincount(data.labels)
        # T repeats every descriptor: its singular values are those of the weighted table.
        _, singular, basis = np.linalg.svd(
            np.sqrt(counts)[:, None] * data.semantics, full_matrices=False
        )
        kept = singular > singular[0] * max(data.semantics.shape) * np.finfo(singular.dtype).eps
        basis = basis[kept]
        sums = class_sums(data.features, data.labels, len(data.semantics))
        moment = (basis @ data.semantics.T) @ sums @ spectrum.vectors
        return _Statistics(spectrum, singular[kept] ** 2, basis.T, moment)

    def fit_prepared(self, data: _Statistics) -> None:
        penalty = self.config.penalty
        divisors = data.values[:, None] + penalty * data.spectrum.values
        solution = (1 + penalty) * data.moment / divisors
        self.weights_ = data.vectors @ (solution @ data.spectrum.vectors.T)

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        if self.config.direction == "encode":
            return affine(self.weights_.T), UnitRows(), affine(s.T)
        return UnitRows(), affine(unit_rows(s @ self.weights_).T)
