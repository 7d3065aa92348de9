"""Synthesized classifiers."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy.spatial.distance import cdist, pdist
from scipy.special import softmax
from torch import nn

from mcfa_fast.systems.base import SystemConfig
from mcfa_fast.systems.layers import affine
from mcfa_fast.systems.seen_classifier import SeenClassifier
from mcfa_fast.systems.solved import PreparedData, SolvedSystem

__all__ = ["SynC", "SynCConfig"]


class SynCConfig(SystemConfig):
    """Options of SynC."""

    penalty: float = Field(
        1.0, gt=0, description="Weight of half the squared norm of the seen classes' classifiers."
    )
    width: float = Field(
        1.0,
        gt=0,
        description="Width of the similarities, relative to the root mean square distance of seen "
        "descriptors.",
    )


class SynC(SolvedSystem):
    """Linear classifiers of unseen classes as combinations of phantom classes' classifiers.

    A class's classifier is ``w_c = Σ_r σ_cr v_r``, where σ_cr is the softmax over phantom classes r
    of ``-|s_c - b_r|² / width²``. The bases v_r minimise the one-versus-other squared hinge losses
    of the seen classes' w_c plus ``penalty/2·Σ_c |w_c|²`` (SynC o-vs-o). The phantom classes are
    the seen ones, b_r = s_r: the matrix [σ_cr] is then square, so that the minimum is that of
    separate support vector machines w_c, and V solves ``σ V = W``.

    Attributes:
        bases_: V [S, F].
        phantoms_: b [S, A].
        width_: the width as a distance.

    Source:
        Changpinyo, Chao, Gong and Sha, "Synthesized classifiers for zero-shot learning", 2016,
        Eqs. 2 to 5.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("sync", options={"width": 2.0})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "sync"
    Config = SynCConfig
    config: SynCConfig
    dtype = np.float32
    learned = ("bases_", "phantoms_", "width_")

    def statistics(self, data: PreparedData) -> SeenClassifier:
        return SeenClassifier(data, "squared_hinge")

    def fit_prepared(self, data: SeenClassifier) -> None:
        distances = pdist(data.semantics, "sqeuclidean")
        if not distances.any():
            raise ValueError("semantics: expected different descriptors of seen classes, got one")
        self.phantoms_ = data.semantics
        self.width_ = np.asarray(self.config.width * np.sqrt(distances.mean()))
        similarities = self._similarities(data.semantics)
        weights = data.fit(self.config.penalty).weights
        # Least squares and not a plain solution: two seen classes may have the same descriptor.
        self.bases_ = np.linalg.lstsq(similarities, weights.T, rcond=None)[0]

    def score_layers(self, s: np.ndarray) -> tuple[nn.Module, ...]:
        return (affine((self._similarities(s) @ self.bases_).T.astype(self.dtype)),)

    def _similarities(self, s: np.ndarray) -> np.ndarray:
        return softmax(-cdist(s, self.phantoms_, "sqeuclidean") / self.width_**2, axis=1)
