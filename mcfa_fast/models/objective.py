"""The training objective of MCFA."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mcfa_fast import functional
from mcfa_fast.config import MCFAConfig
from mcfa_fast.models.mcfa import MCFAOutput

__all__ = ["LossWeights", "MCFALoss", "MCFALosses"]


class LossWeights(NamedTuple):
    """What each term counts in the total."""

    reconstruction: float
    kl: float
    cross_reconstruction: float
    alignment: float
    vtov: float
    vtos: float
    stov: float

    @classmethod
    def of(cls, config: MCFAConfig, epoch: int | None = None) -> "LossWeights":
        """The weights in an epoch, counted from 1, or those that hold once warm-ups are over.

        During a warm-up from ``first`` to ``last`` a weight is multiplied by
        ``(epoch - first) / (last - first)``; before it, by 0.

        Example:
            >>> config = MCFAConfig(alignment_weight=8.0, alignment_warmup=(10, 20))
            >>> [LossWeights.of(config, epoch).alignment for epoch in (10, 15, 20, 21)]
            [0.0, 4.0, 8.0, 8.0]
        """
        warmups = {
            "kl": config.kl_warmup,
            "cross_reconstruction": config.cross_reconstruction_warmup,
            "alignment": config.alignment_warmup,
        }
        weights = {}
        for name in cls._fields:
            weights[name] = getattr(config, f"{name}_weight")
            if epoch is not None and warmups.get(name) is not None:
                first, last = warmups[name]
                weights[name] *= min(1.0, max(0.0, (epoch - first) / (last - first)))
        return cls(**weights)


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
        \ell = \lambda_0 \ell_{rec} + \beta\,\ell_{KL} + \lambda_1 \ell_{CMFR}
             + \lambda_2 \ell_{CMDA} + \lambda_3 \ell_{VtoV} + \lambda_4 \ell_{VtoS}
             + \lambda_5 \ell_{StoV}

    Reconstructions are compared by the sum of absolute differences. The contrastive terms compare
    the sampled latents, or the means with ``contrast="means"``; the alignment term compares means
    and standard deviations. The paper's :math:`\lambda_0` is 1. A class's own
    terms (descriptor reconstruction and KL) are computed once and weighted by the class's number
    of instances in the batch (``class_weighting="instances"``, the sums of Eqs. 1-3 over instances
    paired with their descriptors) or by one (``"rows"``). A class without instances in the batch
    has weight 0 and takes part only as a negative of VtoS.

    Args:
        config: The weights λ0..λ5 and β, the temperature, ``positives``, ``contrast`` and
            ``class_weighting``.

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
        self.weights = LossWeights.of(config)
        self.temperature = config.temperature
        self.positives = config.positives
        self.contrast_means = config.contrast == "means"
        self.count_instances = config.class_weighting == "instances"

    def forward(self, output: MCFAOutput, weights: LossWeights | None = None) -> MCFALosses:
        """The loss of one batch.

        Args:
            output: What the model returned for the batch.
            weights: Used instead of the configuration's, as in an epoch of a warm-up.

        Raises:
            ValueError: If a label is not in 0..C-1 (as :mod:`mcfa_fast.functional` checks it).
        """
        labels = output.labels
        means, samples = (
            (output.visual_mean, output.semantic_mean),
            (output.visual_latents, output.semantic_latents),
        )
        vtov, vtos, stov = functional.contrastive_losses(
            *(means if self.contrast_means else samples),
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
        class_kl = functional.kl_divergence(
            output.semantic_mean, output.semantic_logvar, reduction="none"
        )
        kl = functional.kl_divergence(output.visual_mean, output.visual_logvar) + torch.dot(
            class_weights, class_kl
        )
        reconstruction, cross_reconstruction = self._reconstructions(output, class_weights)
        weights = self.weights if weights is None else weights
        total = (
            weights.reconstruction * reconstruction
            + weights.kl * kl
            + weights.cross_reconstruction * cross_reconstruction
            + weights.alignment * alignment
            + weights.vtov * vtov
            + weights.vtos * vtos
            + weights.stov * stov
        )
        return MCFALosses(
            total, reconstruction, kl, cross_reconstruction, alignment, vtov, vtos, stov
        )

    def _reconstructions(self, output: MCFAOutput, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Own and cross-modal errors; 0 where the model did not decode."""
        if output.visual_reconstruction is None:
            nothing = output.visual_mean.new_zeros(())
            return nothing, nothing
        own = functional.l1_reconstruction(
            output.semantic_reconstruction, output.semantics, reduction="none"
        )
        return (
            functional.l1_reconstruction(output.visual_reconstruction, output.features)
            + torch.dot(class_weights, own),
            functional.l1_reconstruction(
                output.features, output.visual_from_semantic, output.labels
            )
            + functional.l1_reconstruction(
                output.semantic_from_visual, output.semantics, output.labels
            ),
        )

    def _class_weights(self, labels: Tensor, semantics: Tensor) -> Tensor:
        # Counted in integers, so that the order of the additions cannot matter.
        counts = torch.zeros(semantics.shape[0], dtype=torch.int64, device=labels.device)
        counts.scatter_add_(0, labels, torch.ones_like(labels))
        if not self.count_instances:
            counts = counts.clamp(max=1)
        return counts.to(semantics.dtype)
