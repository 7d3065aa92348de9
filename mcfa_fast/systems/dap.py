"""Direct attribute prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcfa_fast.systems.attributes import BinaryAttributes
from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.linear import fit_linear
from mcfa_fast.systems.spectrum import Spectrum
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["DAP"]


class _Problem(NamedTuple):
    spectrum: Spectrum
    attributes: BinaryAttributes
    targets: np.ndarray  # ±1 [n, M]


class DAP(Baseline):
    """One logistic regression per attribute; classes by the product of attribute probabilities.

    ``p(c | x) ∝ Π_m p(a_m^c | x) / p(a_m^c)``. Descriptors are made binary at their means over the
    seen classes; the attributes' priors are their shares of the seen classes.

    Args:
        penalty: weight of half the squared norm in the logistic regressions, above 0.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        attributes_: how descriptors become attributes.
        linear_: the log-odds of every attribute as functions of the features.

    Source:
        Lampert et al., "Learning to detect unseen object classes by between-class attribute
        transfer", 2009, Eq. 2; logistic regression in the place of support vector machines with
        fitted probabilities.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = DAP().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "dap"
    dtype = np.float32
    unit_semantics = False

    def __init__(
        self, *, penalty: float = 1.0, task: Task = "zsl", calibration: float | None = None
    ) -> None:
        self.penalty = penalty
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> _Problem:
        attributes = BinaryAttributes.of(data.semantics)
        signs = 2 * attributes(data.semantics) - 1
        return _Problem(Spectrum.of(data.features), attributes, signs[data.labels])

    def _fit(self, data: _Problem) -> None:
        self.attributes_ = data.attributes
        # Hundreds of attributes take long, and their sum evens out what is left to converge.
        self.linear_ = fit_linear(
            data.spectrum, data.targets, loss="logistic", penalty=self.penalty, tolerance=1e-3
        )

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return self.attributes_.class_scores(self.linear_(x), s)
