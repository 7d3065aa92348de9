"""Within-class whitening of embeddings, and means of groups of rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["group_means", "whitening_matrix"]


def whitening_matrix(latents: Tensor, labels: Tensor, shrinkage: float) -> Tensor:
    r"""The symmetric matrix :math:`L = (W + \lambda \frac{\operatorname{tr} W}{D} I)^{-1/2}`.

    :math:`W = \frac{1}{n} \sum_i (z_i - m_{y_i})(z_i - m_{y_i})^T` is how latents spread about
    their class's mean m. Along directions in which images of one class differ, :math:`L z` differs
    less.

    Args:
        latents: z [n, D].
        labels: class index [n] of every row.
        shrinkage: λ, greater than 0; the larger, the closer L is to a multiple of I.

    Returns:
        L [D, D], float64; I when no class has two different latents.

    Source:
        Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker
        recognition", 2006, Section 3; the shrinkage towards a multiple of I is ours.

    Example:
        >>> latents = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 5.0], [0.0, 5.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> whitening_matrix(latents, labels, 1.0)
        tensor([[0.5774, 0.0000],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    latents = latents.double()
    classes, rows = labels.unique(return_inverse=True)
    residuals = latents - group_means(latents, rows, len(classes))[rows]
    covariance = residuals.T @ residuals / len(latents)
    variances, directions = torch.linalg.eigh(covariance)
    mean = variances.mean()
    if mean <= torch.finfo(latents.dtype).eps * latents.square().mean():
        return torch.eye(len(covariance), dtype=latents.dtype)
    scales = (variances.clamp(min=0) + shrinkage * mean).rsqrt()
    return (directions * scales) @ directions.T


def group_means(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    """Mean [count, D] of the rows [N, D] of each group; `groups` [N] numbers them."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add_(0, groups, rows)
    return sums / groups.bincount(minlength=count)[:, None]
