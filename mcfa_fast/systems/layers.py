"""Small layers that scores are made of; all can be scripted and exported."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KeepLargest", "LogOdds", "UnitRows", "affine", "unit_rows"]


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows [N, D] divided by their Euclidean norms; a row of zeros stays one.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)


def affine(weights: np.ndarray, intercepts: np.ndarray | None = None) -> nn.Linear:
    """The layer ``x W + b`` for W [I, O] and b [O], of the floating type of W.

    Example:
        >>> affine(np.array([[2.0], [1.0]]), np.array([5.0]))(torch.ones(1, 2).double()).item()
        8.0
    """
    inputs, outputs = weights.shape
    # Nothing is drawn for a layer without memory, and the global generator stays as it is.
    layer = nn.Linear(inputs, outputs, bias=intercepts is not None, device="meta")
    layer.weight = _fixed(weights.T)
    if intercepts is not None:
        layer.bias = _fixed(intercepts.astype(weights.dtype))
    return layer


class UnitRows(nn.Module):
    """Rows divided by their Euclidean norms."""

    def forward(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=1)


class KeepLargest(nn.Module):
    """The highest values of a row; the others become 0. Of equals at the limit, all stay.

    Args:
        count: how many.

    Example:
        >>> KeepLargest(1)(torch.tensor([[0.25, 0.75]])).tolist()
        [[0.0, 0.75]]
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, rows: Tensor) -> Tensor:
        least = rows.topk(self.count, dim=1).values[:, -1:]
        return torch.where(rows >= least, rows, torch.zeros_like(rows))


class LogOdds(nn.Module):
    """``log p / (1 - p)`` [N, M] for ``p = q T``, with q [N, S] probabilities of S classes.

    Args:
        table: T [S, M], 0 or 1: which classes have an attribute.
        least: p and 1 - p are at least this.
    """

    def __init__(self, table: np.ndarray, least: float) -> None:
        super().__init__()
        self.least = least
        self.having = affine(table)
        # As a sum of its own, 1 - p keeps its digits where p is nearly 1.
        self.lacking = affine(1 - table)

    def forward(self, probabilities: Tensor) -> Tensor:
        having = self.having(probabilities).clamp(self.least, 1.0 - self.least)
        lacking = self.lacking(probabilities).clamp(self.least, 1.0 - self.least)
        return having.log() - lacking.log()


def _fixed(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(values)), requires_grad=False)
