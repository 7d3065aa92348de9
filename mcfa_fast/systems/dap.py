"""Direct attribute prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field
from torch import nn

from mcfa_fast.systems.attributes import BinaryAttributes
from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import affine
from mcfa_fast.systems.linear import fit_linear
from mcfa_fast.systems.solved import PreparedData, SolvedSystem
from mcfa_fast.systems.spectrum import Spectrum

__all__ = ["DAP", "DAPConfig"]


class DAPConfig(SystemConfig):
    """Options of direct attribute prediction."""

    penalty: float = Field(
        1.0, gt=0, description="Weight of half the squared norm in the logistic regressions."
    )


class _Statistics(NamedTuple):
    spectrum: Spectrum
    attributes: BinaryAttributes
    targets: np.ndarray  # ±1 [n, M]


class DAP(SolvedSystem):
    """One logistic regression per attribute; classes by the product of attribute probabilities.

    ``p(c | x) ∝ Π_m p(a_m^c | x) / p(a_m^c)``. Descriptors are made binary at their means over the
    seen classes; the attributes' priors are their shares of the seen classes.

    Attributes:
        weights_, intercepts_: the log-odds of every attribute as linear functions, [F, M] and [M].
        threshold_, kept_, prior_: how descriptors become attributes, see
            :class:`~mcfa_fast.systems.attributes.BinaryAttributes`.

    Source:
        Lampert et al., "Learning to detect unseen object classes by between-class attribute
        transfer", 2009, Eq. 2; logistic regression in the place of support vector machines with
        fitted probabilities.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("dap", options={"penalty": 0.1})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "dap"
    Config = DAPConfig
    config: DAPConfig
    dtype = np.float32
    unit_semantics = False
    learned = ("weights_", "intercepts_", "threshold_", "kept_", "prior_")

    def statistics(self, data: PreparedData) -> _Statistics:
        attributes = BinaryAttributes.of(data.semantics)
        signs = 2 * attributes(data.semantics) - 1
        return _Statistics(Spectrum.of(data.features), attributes, signs[data.labels])

    def fit_prepared(self, data: _Statistics) -> None:
        self.threshold_, self.kept_, self.prior_ = data.attributes
        # Hundreds of attributes take long, and their sum evens out what is left to converge.
        self.weights_, self.intercepts_ = fit_linear(
            data.spectrum,
            data.targets,
            loss="logistic",
            penalty=self.config.penalty,
            tolerance=1e-3,
        )

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        attributes = BinaryAttributes(self.threshold_, self.kept_, self.prior_)
        return affine(self.weights_, self.intercepts_), attributes.class_layer(s)
