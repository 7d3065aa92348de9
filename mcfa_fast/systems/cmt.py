"""CMT: a two-layer network that regresses descriptors from features."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.compatibility import Compatibility, CompatibilitySystem, SeenImages
from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.ranks import Share, mean_over_batch

__all__ = ["CMT", "CMTConfig"]


class CMTConfig(TrainableConfig):
    """Options of CMT."""

    hidden_units: int = Field(100, ge=1, description="Width of the hidden layer.")
    training: TrainingConfig = Field(
        TrainingConfig(batch_size=128, epochs=5, learning_rate=3e-3),
        description="Batches, epochs, step size, precision.",
    )


class _Network(Compatibility):
    """``s(x) = W_1 tanh(W_2 x + b_2) + b_1``, scored by the squared distance to descriptors.

    Args:
        tensors: ``hidden_weight`` W_2 [H, F], ``hidden_bias`` b_2 [H], ``output_weight`` W_1
            [A, H], ``output_bias`` b_1 [A], and ``seen``, the seen descriptors [S, A].
    """

    weights = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")
    if TYPE_CHECKING:  # TorchScript knows no annotations that are text
        hidden_weight: Tensor
        hidden_bias: Tensor
        output_weight: Tensor
        output_bias: Tensor
        seen: Tensor

    def regress(self, features: Tensor) -> Tensor:
        """Regressed descriptors [N, A] of features [N, F]."""
        hidden = torch.tanh(F.linear(features, self.hidden_weight, self.hidden_bias))
        return F.linear(hidden, self.output_weight, self.output_bias)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        regressed = self.regress(features)
        squares = regressed.square().sum(dim=1, keepdim=True) + classes.square().sum(dim=1)
        return 2 * regressed @ classes.T - squares

    def loss(self, features: Tensor, labels: Tensor, share: Optional[Share] = None) -> Tensor:
        distances = (self.regress(features) - self.seen[labels]).square().sum(dim=1)
        return mean_over_batch(distances, share)


class CMT(CompatibilitySystem):
    """Cross-modal transfer: the descriptor that is nearest to one regressed from the features.

    ``min Σ_i |s_{y_i} - W_1 tanh(W_2 x_i)|²``; scores are negative squared distances. This is the
    embedding alone: the authors' detection of novelties, which chooses between seen and unseen
    classes before either is classified, is left out. Layers have biases, and the training is by
    Adam instead of L-BFGS.

    Source:
        Socher et al., "Zero-shot learning through cross-modal transfer", 2013, Eq. 1.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("cmt", options={"hidden_units": 20, "epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "cmt"
    Config = CMTConfig
    config: CMTConfig

    def initial(self, images: SeenImages, generator: torch.Generator) -> dict[str, Tensor]:
        width, semantics = self.config.hidden_units, images.semantics
        shares = images.counts.double() / len(images.labels)
        return {
            "hidden_weight": _xavier(width, self.visual_features, generator),
            "hidden_bias": torch.zeros(width),
            "output_weight": _xavier(self.semantic_features, width, generator),
            # What the network gives for any image before it has learned to tell them apart.
            "output_bias": (shares @ semantics.double()).to(semantics.dtype),
            "seen": semantics,
        }

    def compatibility_of(self, tensors: Mapping[str, Tensor]) -> Compatibility:
        return _Network(tensors)

    def optimizer(self, images: SeenImages, learning_rate: float) -> Optimizer:
        return torch.optim.Adam(self.compatibility.parameters(), lr=learning_rate, fused=True)


def _xavier(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    return nn.init.xavier_uniform_(torch.empty(outputs, inputs), generator=generator)
