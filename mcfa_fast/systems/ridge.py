"""Ridge regression from features to descriptors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.checks_old import check_positive
from mcfa_fast.systems.preparation_old import unit_rows
from mcfa_fast.systems.spectrum import Spectrum, class_sums
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["Ridge"]


class _Problem(NamedTuple):
    spectrum: Spectrum
    moment: np.ndarray  # Q^T x^T Y [F, S], with Y the one-hot labels: T = Y S
    semantics: np.ndarray  # S [S, A]
    mean: np.ndarray  # of T's rows [A]


class Ridge(Baseline):
    """Regression from features to descriptors; the class of highest cosine is predicted.

    ``W = (x^T x + α I)^-1 x^T T`` and an intercept, with T [n, A] the descriptors of the rows'
    classes. As the features are centred, the intercept is the mean row of T.

    Args:
        penalty: α, above 0.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        weights_: W [F, A].
        intercept_: [A].

    Source:
        Linear regression as the regressor of Palatucci et al., "Zero-shot learning with semantic
        output codes", 2009, Section 4.3.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = Ridge().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "ridge"

    def __init__(
        self, *, penalty: float = 1.0, task: Task = "zsl", calibration: float | None = None
    ) -> None:
        self.penalty = penalty
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> _Problem:
        spectrum = Spectrum.of(data.features)
        sums = class_sums(data.features, data.labels, len(data.semantics))
        counts = np.bincount(data.labels)
        mean = counts @ data.semantics / len(data.labels)
        return _Problem(spectrum, spectrum.vectors.T @ sums.T, data.semantics, mean)

    def _fit(self, data: _Problem) -> None:
        check_positive(penalty=self.penalty)
        solution = data.moment / (data.spectrum.values + self.penalty)[:, None]
        self.weights_ = (data.spectrum.vectors @ solution) @ data.semantics
        self.intercept_ = data.mean

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return unit_rows(x @ self.weights_ + self.intercept_) @ s.T
