"""Embarrassingly simple zero-shot learning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mcfa_fast.baselines.base import Baseline, TrainingData
from mcfa_fast.baselines.checks import check_positive
from mcfa_fast.baselines.spectrum import Spectrum, class_sums
from mcfa_fast.config import Task

__all__ = ["ESZSL"]


class _Problem(NamedTuple):
    spectrum: Spectrum
    moment: np.ndarray  # Q^T x^T Y [F, S]
    semantics: np.ndarray


class ESZSL(Baseline):
    """Bilinear compatibility ``x W s^T`` in closed form.

    ``W = (x^T x + γ I)^-1 x^T Y S (S^T S + λ I)^-1`` with Y [n, S] being 1 for a row's class and -1
    for the others.

    Args:
        visual_penalty: γ, above 0.
        semantic_penalty: λ, above 0.
        task, calibration: see :class:`~mcfa_fast.baselines.base.Baseline`.

    Attributes:
        weights_: W [F, A].

    Source:
        Romera-Paredes and Torr, "An embarrassingly simple approach to zero-shot learning", 2015,
        Eq. 5.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = ESZSL().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "eszsl"

    def __init__(
        self,
        *,
        visual_penalty: float = 1.0,
        semantic_penalty: float = 1.0,
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.visual_penalty = visual_penalty
        self.semantic_penalty = semantic_penalty
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> _Problem:
        spectrum = Spectrum.of(data.features)
        sums = class_sums(data.features, data.labels, len(data.semantics))
        moment = spectrum.vectors.T @ (2 * sums - data.features.sum(axis=0)).T
        return _Problem(spectrum, moment, data.semantics)

    def _fit(self, data: _Problem) -> None:
        check_positive(visual_penalty=self.visual_penalty, semantic_penalty=self.semantic_penalty)
        s = data.semantics
        # S (S^T S + λ I)^-1 = (S S^T + λ I)^-1 S: as many unknowns as classes, not as attributes.
        right = np.linalg.solve(s @ s.T + self.semantic_penalty * np.eye(len(s)), s)
        left = data.moment / (data.spectrum.values + self.visual_penalty)[:, None]
        self.weights_ = (data.spectrum.vectors @ left) @ right

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return x @ (self.weights_ @ s.T)
