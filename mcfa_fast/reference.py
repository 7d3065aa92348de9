"""The definitions of the losses in plain PyTorch: the one oracle of tests and benchmarks.

Every function has the signature and semantics of its twin in :mod:`mcfa_fast.functional`, is
differentiable any number of times, works on any device, and computes in the dtype it is given
(float64 for an oracle). It is written to be read beside the paper's equations, and it allocates
the full N×N and N×C matrices that the compiled operators avoid.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mcfa_fast.ops import AnchorKeySums, ContrastiveLossValues


def vtov_loss(
    visual: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    """Visual-to-visual loss (MCFA, Eq. 4); see :func:`mcfa_fast.functional.vtov_loss`."""
    candidates, candidate_labels = visual, labels
    if references is not None and reference_labels is not None:
        candidates = torch.cat([visual, references])
        candidate_labels = torch.cat([labels, reference_labels])
    similarity = _normalized(visual, normalize) @ _normalized(candidates, normalize).T / temperature
    itself = torch.arange(len(labels), device=labels.device)[:, None] == torch.arange(
        len(candidate_labels), device=labels.device
    )
    kept = labels != ignore_index
    others = (candidate_labels != ignore_index)[None, :] & ~itself
    positive = others & (labels[:, None] == candidate_labels[None, :])
    valid = kept & positive.any(dim=1)
    losses = _contrast(similarity, others, positive, positives)
    return _reduced(losses, valid, reduction)


def vtos_loss(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
) -> Tensor:
    """Visual-to-semantic loss (MCFA, Eq. 5); see :func:`mcfa_fast.functional.vtos_loss`."""
    similarity = _normalized(visual, normalize) @ _normalized(semantic, normalize).T / temperature
    kept = labels != ignore_index
    own = kept[:, None] & (labels[:, None] == torch.arange(len(semantic), device=labels.device))
    losses = _contrast(similarity, torch.ones_like(own), own, "out")
    return _reduced(losses, kept, reduction)


def stov_loss(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
) -> Tensor:
    """Semantic-to-visual loss (MCFA, Eq. 6); see :func:`mcfa_fast.functional.stov_loss`."""
    similarity = _normalized(semantic, normalize) @ _normalized(visual, normalize).T / temperature
    kept = (labels != ignore_index)[None, :].expand(len(semantic), -1)
    classes = torch.arange(len(semantic), device=labels.device)
    positive = kept & (classes[:, None] == labels[None, :])
    losses = _contrast(similarity, kept, positive, positives)
    return _reduced(losses, positive.any(dim=1), reduction)


def contrastive_losses(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> ContrastiveLossValues:
    """All three losses; see :func:`mcfa_fast.functional.contrastive_losses`."""
    shared: dict[str, Any] = {
        "temperature": temperature,
        "reduction": reduction,
        "normalize": normalize,
        "ignore_index": ignore_index,
    }
    return ContrastiveLossValues(
        vtov_loss(
            visual,
            labels,
            positives=positives,
            references=references,
            reference_labels=reference_labels,
            **shared,
        ),
        vtos_loss(visual, semantic, labels, **shared),
        stov_loss(visual, semantic, labels, positives=positives, **shared),
    )


def anchor_key(
    anchors: Tensor,
    keys: Tensor | None,
    anchor_labels: Tensor | None,
    key_labels: Tensor | None,
    self_index: Tensor | None,
    temperature: float | Tensor,
    key_side: bool = False,
    positives: str = "out",
    normalize: bool = True,
    ignore_index: int = -100,
) -> AnchorKeySums:
    """Sums over all pairs of anchors and keys; see :func:`mcfa_fast.ops.anchor_key`."""
    device, instances = anchors.device, torch.arange(len(anchors), device=anchors.device)
    if keys is None:
        keys, key_labels, self_index = anchors, anchor_labels, instances
    if anchor_labels is None or key_labels is None:
        anchor_labels, key_labels = instances, torch.arange(len(keys), device=device)
    similarity = _normalized(anchors, normalize) @ _normalized(keys, normalize).T / temperature
    pairs = (anchor_labels != ignore_index)[:, None] & (key_labels != ignore_index)[None, :]
    if self_index is not None:
        pairs = pairs & (self_index[:, None] != torch.arange(len(keys), device=device)[None, :])
    positive = pairs & (anchor_labels[:, None] == key_labels[None, :])

    def side(similarity: Tensor, pairs: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if positives == "in":
            of_positives = _log_sum_exp_or_nothing(similarity, positive)
        else:
            of_positives = torch.where(positive, similarity, 0).sum(dim=1)
        return _log_sum_exp_or_nothing(similarity, pairs), of_positives, positive.sum(dim=1)

    sides = side(similarity, pairs, positive)
    if key_side:
        return AnchorKeySums(*sides, *side(similarity.T, pairs.T, positive.T))
    nothing = similarity.new_empty(0)
    return AnchorKeySums(*sides, nothing, nothing, nothing.long())


def info_nce_loss(
    anchors: Tensor,
    keys: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float | Tensor,
    reduction: str = "mean",
    normalize: bool = True,
) -> Tensor:
    """InfoNCE; see :func:`mcfa_fast.functional.info_nce_loss`."""
    anchors, keys = _normalized(anchors, normalize), _normalized(keys, normalize)
    if negatives is None:
        logits, own = anchors @ keys.T, torch.arange(len(anchors), device=anchors.device)
    else:
        products = (anchors * keys).sum(dim=1, keepdim=True)
        logits = torch.cat([products, anchors @ _normalized(negatives, normalize).T], dim=1)
        own = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
    return _cross_entropy(logits / temperature, own, reduction)


def clip_loss(
    images: Tensor, texts: Tensor, *, temperature: float | Tensor, normalize: bool = True
) -> Tensor:
    """The loss of two towers; see :func:`mcfa_fast.functional.clip_loss`."""
    logits = _normalized(images, normalize) @ _normalized(texts, normalize).T / temperature
    own = torch.arange(len(images), device=images.device)
    return (_cross_entropy(logits, own, "mean") + _cross_entropy(logits.T, own, "mean")) / 2


def nt_xent_loss(
    views_a: Tensor, views_b: Tensor, *, temperature: float | Tensor, reduction: str = "mean"
) -> Tensor:
    """NT-Xent; see :func:`mcfa_fast.functional.nt_xent_loss`."""
    views = F.normalize(torch.cat([views_a, views_b]), dim=1)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    own = torch.arange(len(views), device=views.device).roll(len(views_a))
    return _cross_entropy(logits, own, reduction)


def wasserstein_alignment(
    mean_a: Tensor,
    logvar_a: Tensor,
    mean_b: Tensor,
    logvar_b: Tensor,
    labels: Tensor | None = None,
    *,
    reduction: str = "sum",
) -> Tensor:
    """Eq. 3 of MCFA; see :func:`mcfa_fast.functional.wasserstein_alignment`."""
    if labels is not None:
        mean_b, logvar_b = mean_b[labels], logvar_b[labels]
    squared = (mean_a - mean_b).square().sum(dim=1)
    squared = squared + ((logvar_a / 2).exp() - (logvar_b / 2).exp()).square().sum(dim=1)
    apart = squared > 0
    distance = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
    return _reduced(distance, torch.ones_like(apart), reduction)


def kl_divergence(mean: Tensor, logvar: Tensor, *, reduction: str = "sum") -> Tensor:
    """The KL term of MCFA's Eq. 1; see :func:`mcfa_fast.functional.kl_divergence`."""
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1)
    return _reduced(divergence, torch.ones_like(divergence, dtype=torch.bool), reduction)


def l1_reconstruction(
    instances: Tensor, table: Tensor, labels: Tensor | None = None, *, reduction: str = "sum"
) -> Tensor:
    """MCFA's Eqs. 1-2, per row; see :func:`mcfa_fast.functional.l1_reconstruction`."""
    if labels is not None:
        table = table[labels]
    distance = (instances - table).abs().sum(dim=1)
    return _reduced(distance, torch.ones_like(distance, dtype=torch.bool), reduction)


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor, *, power: float = 0.5) -> Tensor:
    """Samples from given noise; see :func:`mcfa_fast.functional.reparameterize`."""
    return mean + (power * logvar).exp() * noise


def _normalized(latents: Tensor, normalize: bool) -> Tensor:
    return F.normalize(latents, dim=1) if normalize else latents


def _cross_entropy(logits: Tensor, own: Tensor, reduction: str) -> Tensor:
    if logits.shape[0] == 0:
        losses = logits.sum(dim=1)
    else:
        losses = logits.logsumexp(dim=1) - logits.gather(1, own[:, None]).squeeze(1)
    return _reduced(losses, torch.ones_like(own, dtype=torch.bool), reduction)


def _contrast(similarity: Tensor, others: Tensor, positive: Tensor, positives: str) -> Tensor:
    """-log of the share of ``positive`` in the softmax over ``others``, per row."""
    log_denominator = _masked_logsumexp(similarity, others)
    count = positive.sum(dim=1).clamp(min=1).to(similarity.dtype)
    if positives == "out":
        return log_denominator - torch.where(positive, similarity, 0).sum(dim=1) / count
    return log_denominator - (_masked_logsumexp(similarity, positive) - count.log())


def _masked_logsumexp(similarity: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp of each row's masked entries; 0 with zero gradient for a row without any."""
    if similarity.shape[1] == 0:
        return similarity.sum(dim=1)
    masked = torch.where(mask, similarity, -torch.inf)
    some = mask.any(dim=1, keepdim=True)
    return torch.where(some, masked, 0).logsumexp(dim=1) * some.squeeze(1)


def _log_sum_exp_or_nothing(similarity: Tensor, mask: Tensor) -> Tensor:
    """As :func:`_masked_logsumexp`, but minus infinity for a row without any."""
    return torch.where(mask.any(dim=1), _masked_logsumexp(similarity, mask), -torch.inf)


def _reduced(losses: Tensor, valid: Tensor, reduction: str) -> Tensor:
    losses = torch.where(valid, losses, 0)
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / valid.sum().clamp(min=1)
