"""Semantic autoencoder."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.checks_old import check_choice, check_positive
from mcfa_fast.systems.preparation_old import unit_rows
from mcfa_fast.systems.spectrum import Spectrum, class_sums
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["SAE"]

Direction = Literal["encode", "decode"]


class _Problem(NamedTuple):
    spectrum: Spectrum  # of B / λ = x^T x
    values: np.ndarray  # of A = T^T T, those above 0 [R]
    vectors: np.ndarray  # their eigenvectors [A, R]
    moment: np.ndarray  # U^T T^T x Q [R, F]


class SAE(Baseline):
    """Linear autoencoder whose code is the class descriptor.

    W [A, F] minimises ``|x - T W|² + λ |x W^T - T|²`` with T [n, A] the descriptors of the rows'
    classes. It solves the Sylvester equation ``A W + W B = C`` with ``A = T^T T``,
    ``B = λ x^T x`` and ``C = (1 + λ) T^T x``. Both A and B being symmetric, their eigenvectors
    decouple the equation, once for every λ; and unlike with a general solver, an A of fewer
    classes than attributes and a singular B do no harm.

    Args:
        penalty: λ, above 0.
        direction: "encode" compares ``W x`` with descriptors, "decode" x with ``W^T s``.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        weights_: W [A, F].

    Source:
        Kodirov, Xiang and Gong, "Semantic autoencoder for zero-shot learning", 2017, Eqs. 5 to 8.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = SAE().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "sae"

    def __init__(
        self,
        *,
        penalty: float = 1.0,
        direction: Direction = "encode",
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.penalty = penalty
        self.direction = direction
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> _Problem:
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
        return _Problem(spectrum, singular[kept] ** 2, basis.T, moment)

    def _fit(self, data: _Problem) -> None:
        check_positive(penalty=self.penalty)
        check_choice(get_args(Direction), direction=self.direction)
        divisors = data.values[:, None] + self.penalty * data.spectrum.values
        solution = (1 + self.penalty) * data.moment / divisors
        self.weights_ = data.vectors @ (solution @ data.spectrum.vectors.T)

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        if self.direction == "encode":
            return unit_rows(x @ self.weights_.T) @ s.T
        return unit_rows(x) @ unit_rows(s @ self.weights_).T
