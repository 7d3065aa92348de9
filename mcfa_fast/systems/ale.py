"""ALE: a bilinear compatibility, trained with a weighted approximate ranking loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.systems.bilinear import BilinearConfig, BilinearSystem
from mcfa_fast.systems.compatibility import margin_violations

__all__ = ["ALE", "ALEConfig", "weighted_ranking_loss"]


def weighted_ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Margin violations, weighted so that the top of the ranking counts most.

    ``β_r / r · Σ_{y≠y_n} max(0, 1 + F(x, y) - F(x, y_n))``, r being the number of wrong classes
    that violate the margin (the bound of the true class's rank) and ``β_r = 1 + 1/2 + ... + 1/r``.

    Args:
        scores: F(x, y) [B, S].
        labels: y_n [B].

    Returns:
        Loss [B] per image.

    Source:
        Akata et al., "Label-embedding for image classification", 2016, Section 3.3 (the ranking
        objective), after Usunier et al., "Ranking with ordered weighted pairwise classification",
        2009.

    Example:
        >>> weighted_ranking_loss(torch.tensor([[2.0, 1.5, 1.25, 0.5]]), torch.tensor([0]))
        tensor([0.5625])
    """
    violations = margin_violations(scores, labels)
    rank = (violations > 0).sum(dim=1)
    harmonic = torch.digamma(rank.to(scores.dtype) + 1) + np.euler_gamma  # β_r, of 0 it is 0
    return harmonic / rank.clamp(min=1) * violations.sum(dim=1)


class ALEConfig(BilinearConfig):
    """Options of ALE."""


class ALE(BilinearSystem):
    """Attribute label embedding: ``F(x, y) = x^T W s_y`` with weighted approximate ranking.

    The rank and the loss are those over all classes, where the authors' steps sample wrong classes
    until one violates the margin and estimate both from it.

    Source:
        Akata et al., "Label-embedding for attribute-based classification", 2013, and
        "Label-embedding for image classification", 2016, Section 3.3.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("ale", options={"epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "ale"
    Config = ALEConfig
    config: ALEConfig
    criterion = staticmethod(weighted_ranking_loss)
