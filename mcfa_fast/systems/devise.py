"""DeViSE: a linear map into descriptor space, trained with a hinge rank loss."""

from __future__ import annotations

from torch import Tensor

from mcfa_fast.systems.bilinear import BilinearConfig, BilinearSystem
from mcfa_fast.systems.compatibility import margin_violations

__all__ = ["DeViSE", "DeViSEConfig", "hinge_rank_loss"]


def hinge_rank_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum of the margin violations of all wrong classes.

    ``Σ_{y≠y_n} max(0, 1 + F(x, y) - F(x, y_n))``

    Args:
        scores: F(x, y) [B, S].
        labels: y_n [B].

    Returns:
        Loss [B] per image.

    Source:
        Frome et al., "DeViSE: A deep visual-semantic embedding model", 2013, Eq. 1.

    Example:
        >>> import torch
        >>> hinge_rank_loss(torch.tensor([[2.0, 1.5, 1.25, 0.5]]), torch.tensor([0]))
        tensor([0.7500])
    """
    return margin_violations(scores, labels).sum(dim=1)


class DeViSEConfig(BilinearConfig):
    """Options of DeViSE."""


class DeViSE(BilinearSystem):
    """Deep visual-semantic embedding: ``F(x, y) = s_y^T M x`` with the hinge rank loss.

    The features are fixed, so that only the map M is trained, and the loss sums over all wrong
    classes, where the authors' steps take the first violating one in random order.

    Source:
        Frome et al., "DeViSE: A deep visual-semantic embedding model", 2013, Eq. 1.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("devise", options={"epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "devise"
    Config = DeViSEConfig
    config: DeViSEConfig
    criterion = staticmethod(hinge_rank_loss)
