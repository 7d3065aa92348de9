"""The training objective of MCFA."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mcfa_fast import functional
from mcfa_fast.ops import ContrastiveLossValues
from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.systems.vae.model import VAEOutput
from mcfa_fast.systems.vae.step import TermWeights
from mcfa_fast.systems.vae.terms import vae_terms
from mcfa_fast.training.ranks import Share

__all__ = ["MCFALoss", "MCFALosses", "weights_of"]


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


def weights_of(config: MCFAConfig) -> TermWeights:
    """What a configuration says each term counts."""
    return TermWeights(*(getattr(config, f"{name}_weight") for name in TermWeights._fields))


class MCFALoss(nn.Module):
    r"""The overall loss of MCFA.

    .. math::
        \ell = \lambda_0 \ell_{rec} + \beta\,\ell_{KL} + \lambda_1 \ell_{CMFR}
             + \lambda_2 \ell_{CMDA} + \lambda_3 \ell_{VtoV} + \lambda_4 \ell_{VtoS}
             + \lambda_5 \ell_{StoV}

    The first four terms are those of :func:`~mcfa_fast.systems.vae.terms.vae_terms`. The
    contrastive terms compare the sampled latents, or the means with ``contrast="means"``. The
    paper's :math:`\lambda_0` is 1. A class without instances in the batch takes part only as a
    negative of VtoS.

    Args:
        config: The weights λ0..λ5 and β, the temperature, ``positives``, ``contrast`` and
            ``class_weighting``.

    Source:
        Liu et al., Eq. 7, with the terms of Eqs. 1-6.

    Example:
        >>> import torch
        >>> from mcfa_fast.systems.mcfa import MCFA
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
        self.weights = weights_of(config)
        self.temperature = config.temperature
        self.positives = config.positives
        self.contrast_means = config.contrast == "means"
        self.count_instances = config.class_weighting == "instances"

    def forward(
        self,
        output: VAEOutput,
        weights: TermWeights | None = None,
        share: Share | None = None,
    ) -> MCFALosses:
        """The loss of one batch.

        Args:
            output: What the model returned for the batch.
            weights: Used instead of the configuration's.
            share: Which part of a batch the instances are, so that the losses are this rank's part
                of the batch's; None is all of it.

        Raises:
            ValueError: If a label is not in 0..C-1 (as :mod:`mcfa_fast.functional` checks it).
        """
        means, samples = (
            (output.visual_mean, output.semantic_mean),
            (output.visual_latents, output.semantic_latents),
        )
        contrasts = functional.contrastive_losses(
            *(means if self.contrast_means else samples),
            output.labels,
            temperature=self.temperature,
            positives=self.positives,
            group=None if share is None else share.group,
        )
        if share is not None:
            contrasts = ContrastiveLossValues(*map(share.once, contrasts))
        own = vae_terms(output, count_instances=self.count_instances, share=share)
        terms = (*own, *contrasts)
        weights = self.weights if weights is None else weights
        total = weights[0] * terms[0]
        for weight, term in zip(weights[1:], terms[1:], strict=True):
            total = total + weight * term
        return MCFALosses(total, *terms)
