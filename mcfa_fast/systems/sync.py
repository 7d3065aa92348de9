"""Synthesized classifiers."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.special import softmax

from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.checks_old import check_positive
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["SynC"]


class SynC(Baseline):
    """Linear classifiers of unseen classes as combinations of phantom classes' classifiers.

    A class's classifier is ``w_c = Σ_r σ_cr v_r``, where σ_cr is the softmax over phantom classes r
    of ``-|s_c - b_r|² / width²``. The bases v_r minimise the one-versus-other squared hinge losses
    of the seen classes' w_c plus ``penalty/2·Σ_c |w_c|²`` (SynC o-vs-o). The phantom classes are
    the seen ones, b_r = s_r: the matrix [σ_cr] is then square, so that the minimum is that of
    separate support vector machines w_c, and V solves ``σ V = W``.

    Args:
        penalty: weight of half the squared norm of classifiers, above 0.
        width: of the similarities, relative to the root mean square distance of seen descriptors;
            above 0.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Attributes:
        bases_: V [S, F].
        width_: the width as a distance.

    Source:
        Changpinyo, Chao, Gong and Sha, "Synthesized classifiers for zero-shot learning", 2016,
        Eqs. 2 to 5.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> baseline = SynC().fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> baseline.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "sync"
    dtype = np.float32

    def __init__(
        self,
        *,
        penalty: float = 1.0,
        width: float = 1.0,
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.penalty = penalty
        self.width = width
        self.task = task
        self.calibration = calibration

    def _prepare(self, data: TrainingData) -> SeenClassifier:
        return SeenClassifier(data, "squared_hinge")

    def _fit(self, data: SeenClassifier) -> None:
        check_positive(width=self.width)
        distances = pdist(data.semantics, "sqeuclidean")
        if not distances.any():
            raise ValueError("semantics: expected different descriptors of seen classes, got one")
        self.width_ = self.width * np.sqrt(distances.mean())
        similarities = self._similarities(data.semantics)
        # Least squares and not a plain solution: two seen classes may have the same descriptor.
        self.bases_ = np.linalg.lstsq(similarities, data.fit(self.penalty).weights.T, rcond=None)[0]

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        return x @ (self._similarities(s) @ self.bases_).T

    def _similarities(self, s: np.ndarray) -> np.ndarray:
        phantoms = self.semantics_[self.seen_classes_]
        return softmax(-cdist(s, phantoms, "sqeuclidean") / self.width_**2, axis=1)
