"""The bilinear compatibility that DeViSE, ALE, SJE and LatEm learn; only their losses differ."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mcfa_fast.systems.trained_old import Compatibility, Problem, TrainedBaseline
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["Bilinear", "BilinearBaseline"]


class Bilinear(Compatibility):
    """``F(x, y) = max_k x^T W_k s_y``, K maps W_k [F, A]; with K = 1 plain ``x^T W s``.

    Gradients of W_k with respect to a loss over seen classes are sums of ``x s^T``: they lie in the
    span of the S seen descriptors. So steps are taken in coordinates of that span, of dimension
    r <= min(S, A), which is the same method at a fraction of its price. From weights of zero the
    map is exactly that of steps on W itself. Random initial weights stay within the span, too,
    where those of W itself would leave noise in directions that no training image speaks of.

    Args:
        weights: initial weights [K, F, r] in coordinates of the span.
        basis: orthonormal columns [A, r] that span the seen descriptors.
        semantics: seen descriptors [S, A].
        criterion: loss per image [B] of scores [B, S] and labels [B].
    """

    def __init__(
        self,
        weights: Tensor,
        basis: Tensor,
        semantics: Tensor,
        criterion: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.maps = len(weights)
        # All maps side by side, [F, K·r], so that one product serves them.
        self.weights = nn.Parameter(weights.transpose(0, 1).flatten(1).contiguous())
        self.register_buffer("basis", basis)
        self.register_buffer("seen", semantics @ basis)
        self.criterion = criterion

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.criterion(self._compatibility(features, self.seen), labels).mean()

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        return self._compatibility(features, semantics @ self.basis)

    def _compatibility(self, features: Tensor, coordinates: Tensor) -> Tensor:
        mapped = features @ self.weights
        if self.maps == 1:
            return mapped @ coordinates.T
        return (mapped.unflatten(1, (self.maps, -1)) @ coordinates.T).amax(dim=1)


class BilinearBaseline(TrainedBaseline):
    """A bilinear compatibility from weights of zero, trained by stochastic gradient descent.

    The margin is 1 throughout: from weights of zero, a margin of m and a learning rate of m·η give
    m times the same map.
    """

    def __init__(
        self,
        *,
        epochs: int = 20,
        learning_rate: float = 30.0,
        batch_size: int = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.task = task
        self.calibration = calibration

    @staticmethod
    @abstractmethod
    def _criterion(scores: Tensor, labels: Tensor) -> Tensor:
        """Loss per image [B] of scores [B, S] and labels [B]."""

    def _module(self, problem: Problem, generator: torch.Generator) -> Bilinear:
        basis = _span(problem.semantics)
        weights = self._initial((problem.features.shape[1], basis.shape[1]), generator)
        module = Bilinear(weights, basis, problem.semantics.cpu(), self._criterion)
        return module.to(problem.features.device)

    def _initial(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Initial weights [K, F, r], `shape` being (F, r)."""
        return torch.zeros(1, *shape)


def _span(semantics: Tensor) -> Tensor:
    """Orthonormal columns [A, r] that span the rows of `semantics` [S, A], on the CPU."""
    # Always on the CPU, as devices choose different signs.
    _, values, basis = torch.linalg.svd(semantics.cpu().double(), full_matrices=False)
    tolerance = values[0] * max(semantics.shape) * torch.finfo(semantics.dtype).eps
    return basis[values > tolerance].T.to(semantics.dtype).contiguous()
