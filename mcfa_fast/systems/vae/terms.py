"""The terms that objectives of two aligned VAEs have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mcfa_fast import functional
from mcfa_fast.systems.vae.model import VAEOutput
from mcfa_fast.training.ranks import Share

__all__ = ["VAETerms", "vae_terms"]


class VAETerms(NamedTuple):
    """0-dim tensors, sums over the batch."""

    reconstruction: Tensor
    kl: Tensor
    cross_reconstruction: Tensor
    alignment: Tensor


def vae_terms(
    output: VAEOutput, *, count_instances: bool, share: Share | None = None
) -> VAETerms:
    """Own and cross-modal reconstruction, KL divergence and Wasserstein alignment of a batch.

    Reconstructions are compared by the sum of absolute differences; they are 0 where the model did
    not decode. A class's own terms (descriptor reconstruction and KL) are computed once and
    weighted by the class's number of instances in the batch, or by one. A class without instances
    has weight 0.

    Args:
        output: What the model returned for the batch.
        count_instances: Which of the two weights.
        share: Which part of a batch the instances are, so that the terms are this rank's part of
            the batch's; None is all of it.

    Source:
        Liu et al., Eqs. 1-3; Schönfeld et al., "Generalized Zero- and Few-Shot Learning via Aligned
        Variational Autoencoders", 2019, Eqs. 3-7.
    """
    labels = output.labels
    alignment = functional.wasserstein_alignment(
        output.visual_mean,
        output.visual_logvar,
        output.semantic_mean,
        output.semantic_logvar,
        labels,
    )
    class_weights = _class_weights(labels, output.semantics, count_instances, share)
    class_kl = functional.kl_divergence(
        output.semantic_mean, output.semantic_logvar, reduction="none"
    )
    kl = functional.kl_divergence(output.visual_mean, output.visual_logvar) + torch.dot(
        class_weights, class_kl
    )
    return VAETerms(*_reconstructions(output, class_weights, kl), alignment)


def _reconstructions(
    output: VAEOutput, class_weights: Tensor, kl: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if (
        output.visual_reconstruction is None
        or output.semantic_reconstruction is None
        or output.visual_from_semantic is None
        or output.semantic_from_visual is None
    ):
        nothing = output.visual_mean.new_zeros(())
        return nothing, kl, nothing
    own = functional.l1_reconstruction(
        output.semantic_reconstruction, output.semantics, reduction="none"
    )
    reconstruction = functional.l1_reconstruction(
        output.visual_reconstruction, output.features
    ) + torch.dot(class_weights, own)
    cross = functional.l1_reconstruction(
        output.features, output.visual_from_semantic, output.labels
    ) + functional.l1_reconstruction(output.semantic_from_visual, output.semantics, output.labels)
    return reconstruction, kl, cross


def _class_weights(
    labels: Tensor, semantics: Tensor, count_instances: bool, share: Share | None
) -> Tensor:
    counts = _counts(labels, len(semantics))
    if count_instances:
        return counts.to(semantics.dtype)
    if share is None:
        return counts.clamp(max=1).to(semantics.dtype)
    # A class counts once: on each rank by the part of its instances that is there.
    of_batch = _counts(share.labels, len(semantics)).clamp(min=1)
    return counts.to(semantics.dtype) / of_batch


def _counts(labels: Tensor, classes: int) -> Tensor:
    # Counted in integers, so that the order of the additions cannot matter.
    counts = torch.zeros(classes, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, labels, torch.ones_like(labels))
