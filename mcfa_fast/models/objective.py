"""The training objective of MCFA."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mcfa_fast import functional
from mcfa_fast.config import MCFAConfig
from mcfa_fast.models.mcfa import MCFAOutput

__all__ = ["MCFALoss", "MCFALosses"]


class MCFALosses(NamedTuple):
    """The weighted sum and its terms before weighting: 0-dim tensors, sums over the batch."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    cross_reconstruction: Tensor
    alignment: Tensor
    vtov: Tensor
    vtos: Tensor
    stov: Tensor


class MCFALoss(nn.Module):
    r"""The overall loss of MCFA.

    .. math::
        \ell = \ell_{rec} + \beta\,\ell_{KL} + \lambda_1 \ell_{CMFR} + \lambda_2 \ell_{CMDA}
             + \lambda_3 \ell_{VtoV} + \lambda_4 \ell_{VtoS} + \lambda_5 \ell_{StoV}

    Reconstructions are compared by the sum of absolute differences. The contrastive terms compare
    the *sampled* latents; the alignment term compares means and standard deviations. A class's own
    terms (descriptor reconstruction and KL) are computed once and weighted by the class's number
    of instances in the batch (``class_weighting="instances"``, the sums of Eqs. 1-3 over instances
    paired with their descriptors) or by one (``"rows"``). A class without instances in the batch
    has weight 0 and takes part only as a negative of VtoS.

    Args:
        config: The weights λ1..λ5 and β, the temperature, ``positives`` and ``class_weighting``.

    Source:
        Liu et al., Eq. 7, with the terms of Eqs. 1-6.

    Example:
        >>> from mcfa_fast.models import MCFA
        >>> config = MCFAConfig.paper("zsl", latent_features=4)
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.rand(6, 8, generator=generator)
        >>> semantics = torch.rand(2, 5, generator=generator)
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> output = MCFA(8, 5, config)(features, semantics, labels, generator)
        >>> losses = MCFALoss(config)(output)
        >>> losses.total.backward()
        >>> losses.total.shape, losses.vtos.item() > 0
        (torch.Size([]), True)
    """

    def __init__(self, config: MCFAConfig) -> None:
        super().__init__()
        self.kl_weight = config.kl_weight
        self.cross_reconstruction_weight = config.cross_reconstruction_weight
        self.alignment_weight = config.alignment_weight
        self.vtov_weight = config.vtov_weight
        self.vtos_weight = config.vtos_weight
        self.stov_weight = config.stov_weight
        self.temperature = config.temperature
        self.positives = config.positives
        self.count_instances = config.class_weighting == "instances"

    def forward(self, output: MCFAOutput) -> MCFALosses:
        """The loss of one batch.

        Args:
            output: What the model returned for the batch.

        Raises:
            ValueError: If a label is not in 0..C-1 (as :mod:`mcfa_fast.functional` checks it).
        """
        labels = output.labels
        vtov, vtos, stov = functional.contrastive_losses(
            output.visual_latents,
            output.semantic_latents,
            labels,
            temperature=self.temperature,
            positives=self.positives,
        )
        alignment = functional.wasserstein_alignment(
            output.visual_mean,
            output.visual_logvar,
            output.semantic_mean,
            output.semantic_logvar,
            labels,
        )
        class_weights = self._class_weights(labels, output.semantics)
        class_reconstruction = functional.l1_reconstruction(
            output.semantic_reconstruction, output.semantics, reduction="none"
        )
        reconstruction = functional.l1_reconstruction(
            output.visual_reconstruction, output.features
        ) + torch.dot(class_weights, class_reconstruction)
        class_kl = functional.kl_divergence(
            output.semantic_mean, output.semantic_logvar, reduction="none"
        )
        kl = functional.kl_divergence(output.visual_mean, output.visual_logvar) + torch.dot(
            class_weights, class_kl
        )
        cross_reconstruction = functional.l1_reconstruction(
            output.features, output.visual_from_semantic, labels
        ) + functional.l1_reconstruction(output.semantic_from_visual, output.semantics, labels)
        total = (
            reconstruction
            + self.kl_weight * kl
            + self.cross_reconstruction_weight * cross_reconstruction
            + self.alignment_weight * alignment
            + self.vtov_weight * vtov
            + self.vtos_weight * vtos
            + self.stov_weight * stov
        )
        return MCFALosses(
            total, reconstruction, kl, cross_reconstruction, alignment, vtov, vtos, stov
        )

    def _class_weights(self, labels: Tensor, semantics: Tensor) -> Tensor:
        # Counted in integers, so that the order of the additions cannot matter.
        counts = torch.zeros(semantics.shape[0], dtype=torch.int64, device=labels.device)
        counts.scatter_add_(0, labels, torch.ones_like(labels))
        if not self.count_instances:
            counts = counts.clamp(max=1)
        return counts.to(semantics.dtype)
