"""SJE: a bilinear compatibility, trained against the most violating class."""

from __future__ import annotations

from torch import Tensor

from mcfa_fast.systems.bilinear import BilinearConfig, BilinearSystem
from mcfa_fast.systems.compatibility import margin_violations

__all__ = ["SJE", "SJEConfig", "structured_hinge_loss"]


def structured_hinge_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Margin violation of the worst class.

    ``max_y (Δ(y_n, y) + F(x, y)) - F(x, y_n)``, Δ being 0 for ``y = y_n`` and 1 otherwise. Classes
    that violate the margin equally share the gradient.

    Args:
        scores: F(x, y) [B, S].
        labels: y_n [B].

    Returns:
        Loss [B] per image.

    Source:
        Akata et al., "Evaluation of output embeddings for fine-grained image classification",
        2015, Section 3 (the structured objective).

    Example:
        >>> import torch
        >>> structured_hinge_loss(torch.tensor([[2.0, 1.5, 1.25, 0.5]]), torch.tensor([0]))
        tensor([0.5000])
    """
    return margin_violations(scores, labels).amax(dim=1)


class SJEConfig(BilinearConfig):
    """Options of SJE."""


class SJE(BilinearSystem):
    """Structured joint embedding: ``F(x, y) = x^T W s_y`` with the structured hinge loss.

    Source:
        Akata et al., "Evaluation of output embeddings for fine-grained image classification",
        2015, Section 3.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("sje", options={"epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "sje"
    Config = SJEConfig
    config: SJEConfig
    criterion = staticmethod(structured_hinge_loss)
