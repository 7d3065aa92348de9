"""Within-class whitening of the latent space of a trained model."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.inference.bulk import encode_means
from mcfa_fast.inference.latents import group_means
from mcfa_fast.models.mcfa import MCFA

__all__ = ["whitened", "whitening_matrix"]


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


@torch.no_grad()
def whitened(model: MCFA, features: np.ndarray, labels: np.ndarray) -> MCFA:
    """A copy of a trained model whose latent means are multiplied by the whitening matrix.

    Both encoders' last layers take up the matrix and both decoders' first layers its inverse, so
    that the copy reconstructs as before, and whatever works on latents needs to know nothing of it.
    Log-variances stay as they are.

    Args:
        model: the model as it was trained; its ``latent_whitening`` is the shrinkage.
        features: raw features [n, F] of training images.
        labels: class index [n] of every row.
    """
    latents = encode_means(model, features)
    matrix = whitening_matrix(latents, torch.from_numpy(labels), model.config.latent_whitening)
    copy = deepcopy(model)
    for vae in (copy.visual, copy.semantic):
        mean, decoder = vae.encoder.mean, vae.decoder[0]
        matrix = matrix.to(mean.weight.device)
        mean.weight.copy_(matrix @ mean.weight.double())
        mean.bias.copy_(matrix @ mean.bias.double())
        decoder.weight.copy_(torch.linalg.solve(matrix, decoder.weight.double(), left=False))
    return copy
