"""The bilinear compatibility that DeViSE, ALE, SJE and LatEm learn; only their losses differ."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Optional

import torch
from pydantic import Field
from torch import Tensor

from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.compatibility import Compatibility, CompatibilitySystem, SeenImages
from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.ranks import Share, mean_over_batch

__all__ = ["Bilinear", "BilinearConfig", "BilinearSystem", "Criterion"]

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Loss per image [B] of scores [B, S] and labels [B]."""


class BilinearConfig(TrainableConfig):
    """Options of a bilinear compatibility."""

    training: TrainingConfig = Field(
        TrainingConfig(batch_size=64, epochs=20, learning_rate=30.0),
        description="Batches, epochs, step size, precision.",
    )


class Bilinear(Compatibility):
    """``F(x, y) = max_k x^T W_k s_y``, K maps W_k [F, A]; with K = 1 plain ``x^T W s``.

    Gradients of W_k with respect to a loss over seen classes are sums of ``x s^T``: they lie in the
    span of the S seen descriptors. So steps are taken in coordinates of that span, of dimension
    r <= min(S, A), which is the same method at a fraction of its price. From maps of zero the
    map is exactly that of steps on W itself. Random initial maps stay within the span, too, where
    those of W itself would leave noise in directions that no training image speaks of.

    Args:
        tensors: ``maps`` [F, K·r], all of them side by side so that one product serves them, in
            coordinates of the span; ``basis``, its orthonormal columns [A, r]; ``seen`` [S, r], the
            seen descriptors in its coordinates.
        criterion: the loss.
    """

    weights = ("maps",)
    if TYPE_CHECKING:  # TorchScript knows no annotations that are text
        maps: Tensor
        basis: Tensor
        seen: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], criterion: Criterion) -> None:
        super().__init__(tensors)
        self.count = self.maps.shape[1] // self.basis.shape[1]
        self.criterion = criterion

    def embed(self, semantics: Tensor) -> Tensor:
        return semantics @ self.basis

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        mapped = features @ self.maps
        if self.count == 1:
            return mapped @ classes.T
        return (mapped.unflatten(1, (self.count, -1)) @ classes.T).amax(dim=1)

    def loss(self, features: Tensor, labels: Tensor, share: Optional[Share] = None) -> Tensor:
        losses = self.criterion(self(features, self.seen).float(), labels)
        return mean_over_batch(losses, share)


class BilinearSystem(CompatibilitySystem):
    """A bilinear compatibility from maps of zero, trained by stochastic gradient descent.

    The margin is 1 throughout: from maps of zero, a margin of m and a learning rate of m·η give m
    times the same map.
    """

    @staticmethod
    @abstractmethod
    def criterion(scores: Tensor, labels: Tensor) -> Tensor:
        """Loss per image [B] of scores [B, S] and labels [B]."""

    def initial(self, images: SeenImages, generator: torch.Generator) -> dict[str, Tensor]:
        basis = _span(images.semantics)
        maps = self.initial_maps(basis.shape[1], generator)
        return {
            "maps": maps.transpose(0, 1).flatten(1).contiguous(),
            "basis": basis,
            "seen": images.semantics @ basis,
        }

    def initial_maps(self, rank: int, generator: torch.Generator) -> Tensor:
        """Initial maps [K, F, r] in coordinates of the span."""
        return torch.zeros(1, self.visual_features, rank)

    def compatibility_of(self, tensors: Mapping[str, Tensor]) -> Bilinear:
        return Bilinear(tensors, self.criterion)


def _span(semantics: Tensor) -> Tensor:
    """Orthonormal columns [A, r] that span the rows of `semantics` [S, A]."""
    _, values, basis = torch.linalg.svd(semantics.double(), full_matrices=False)
    tolerance = values[0] * max(semantics.shape) * torch.finfo(semantics.dtype).eps
    return basis[values > tolerance].T.to(semantics.dtype).contiguous()
