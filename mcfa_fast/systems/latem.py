"""LatEm: several bilinear maps, one of which is chosen for every pair of image and class."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mcfa_fast.systems.bilinear import BilinearConfig, BilinearSystem
from mcfa_fast.systems.devise import hinge_rank_loss
from mcfa_fast.training.config import TrainingConfig

__all__ = ["LatEm", "LatEmConfig"]


class LatEmConfig(BilinearConfig):
    """Options of LatEm."""

    maps: int = Field(2, ge=1, description="Number K of maps.")
    training: TrainingConfig = Field(
        TrainingConfig(batch_size=64, epochs=10, learning_rate=30.0),
        description="Batches, epochs, step size, precision.",
    )


class LatEm(BilinearSystem):
    """Latent embeddings: ``F(x, y) = max_k x^T W_k s_y`` with the hinge rank loss.

    The loss sums over all wrong classes, where the authors' steps draw one. The number of maps is
    a hyperparameter (their pruning of unused maps is the alternative to choosing it).

    Source:
        Xian et al., "Latent embeddings for zero-shot classification", 2016, Section 3: the
        piecewise-linear compatibility, the ranking objective and its gradient steps.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("latem", options={"maps": 2, "epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "latem"
    Config = LatEmConfig
    config: LatEmConfig
    criterion = staticmethod(hinge_rank_loss)

    def initial_maps(self, rank: int, generator: torch.Generator) -> Tensor:
        # Not zero: equal maps would stay equal.
        shape = (self.config.maps, self.visual_features, rank)
        return torch.randn(shape, generator=generator) / self.visual_features**0.5
