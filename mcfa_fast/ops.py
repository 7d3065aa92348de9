"""The compiled operators as typed functions that TorchScript can compile.

These are the thin layer between :mod:`mcfa_fast.functional`, which documents them, and
``torch.ops.mcfa_fast``, which checks the arguments and computes. Importing this module loads the
extension and so registers the operators.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor

from mcfa_fast._extension import load

load()


class ContrastiveLossValues(NamedTuple):
    """The three contrastive losses of one batch."""

    vtov: Tensor
    vtos: Tensor
    stov: Tensor


class AnchorKeySums(NamedTuple):
    """What anchors see of keys, and keys of anchors; see :func:`anchor_key`."""

    log_sum_exp: Tensor
    """[N] of each anchor over the keys; minus infinity where there is none."""
    positives: Tensor
    """[N] sum of an anchor's similarities to its positives, 0 without; in the "in" form their
    log-sum-exp, minus infinity without."""
    counts: Tensor
    """[N] int64 number of an anchor's positives."""
    key_log_sum_exp: Tensor
    """[M] as before, of each key over the anchors; of size 0 where it was not asked for."""
    key_positives: Tensor
    key_counts: Tensor


def _number(temperature: Union[float, Tensor]) -> Tensor:
    """A temperature as a tensor without dimensions."""
    if isinstance(temperature, Tensor):
        return temperature
    if not torch.jit.is_scripting() and torch.compiler.is_compiling():
        # A product, unlike torch.full, takes a number that changes from call to call as an input
        # of the graph instead of a constant that asks for another graph.
        return torch.ones([], dtype=torch.float64) * temperature
    return torch.full([], temperature, dtype=torch.float64)


def contrastive(
    visual: Tensor,
    semantic: Optional[Tensor],
    labels: Tensor,
    temperature: Union[float, Tensor],
    vtov: bool,
    vtos: bool,
    stov: bool,
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
) -> ContrastiveLossValues:
    """Those of the three losses that are asked for, in one pass; the others come back as 0."""
    losses = torch.ops.mcfa_fast.contrastive_forward(
        visual,
        semantic,
        labels,
        _number(temperature),
        vtov,
        vtos,
        stov,
        positives,
        reduction,
        normalize,
        ignore_index,
    )
    return ContrastiveLossValues(losses[0], losses[1], losses[2])


def anchor_key(
    anchors: Tensor,
    keys: Optional[Tensor],
    anchor_labels: Optional[Tensor],
    key_labels: Optional[Tensor],
    self_index: Optional[Tensor],
    temperature: Union[float, Tensor],
    key_side: bool = False,
    positives: str = "out",
    normalize: bool = True,
    ignore_index: int = -100,
) -> AnchorKeySums:
    r"""Sums over all pairs of anchors and keys, from which contrastive losses are composed.

    With similarities :math:`s_{ij} = a_i \cdot k_j / \tau`, pairs of equal labels are positives,
    and an anchor that is itself among the keys is no pair with itself. An anchor's terms are
    :math:`\log \sum_j e^{s_{ij}}` over its pairs and, over its positives, :math:`\sum_j s_{ij}`
    ("out") or :math:`\log \sum_j e^{s_{ij}}` ("in"). Log-sum-exps over blocks of keys are put
    together by ``torch.logaddexp``, sums and counts by addition. All float results are
    differentiable with respect to anchors, keys and temperature, once; keys that require no
    gradient cost none, and an empty sum has none, whatever (NaN) comes from above. Memory is
    linear in N + M.

    Args:
        anchors: Latents ``[N, D]``.
        keys: Latents ``[M, D]``, or None for anchors that are their own keys, each pair of which
            is computed once.
        anchor_labels: Integers ``[N]``, of which only equality matters; None (both labels) for
            key i being the one positive of anchor i.
        key_labels: Integers ``[M]``; None without `keys`.
        self_index: Integers ``[N]``: the key that is the anchor itself, -1 if none is.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        key_side: Whether the same is wanted of every key over its anchors.
        positives: ``"out"`` or ``"in"``.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        ignore_index: Anchors and keys with this label form no pairs.

    Returns:
        The sums, in float32 (float64 for float64), counts in int64; those of keys are of size 0
        unless asked for.

    Raises:
        ValueError: A wrong shape, device, option or temperature; the message names the argument.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> anchors, keys = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> sums = mf.ops.anchor_key(anchors, keys, None, None, None, temperature=1.0)
        >>> sums.log_sum_exp - sums.positives
        tensor([0.5514, 0.8620])
    """
    sums = torch.ops.mcfa_fast.anchor_key_forward(
        anchors,
        keys,
        anchor_labels,
        key_labels,
        self_index,
        _number(temperature),
        key_side,
        positives,
        normalize,
        ignore_index,
    )
    return AnchorKeySums(sums[0], sums[1], sums[2], sums[3], sums[4], sums[5])


def wasserstein(
    mean_a: Tensor,
    logvar_a: Tensor,
    mean_b: Tensor,
    logvar_b: Tensor,
    labels: Optional[Tensor],
    reduction: str,
) -> Tensor:
    """The 2-Wasserstein distance of each row of a from its row of b, reduced."""
    losses: Tuple[Tensor, Tensor] = torch.ops.mcfa_fast.wasserstein_forward(
        mean_a, logvar_a, mean_b, logvar_b, labels, reduction
    )
    return losses[0]


def kl(mean: Tensor, logvar: Tensor, reduction: str) -> Tensor:
    """The KL divergence of each row from the unit Gaussian, reduced."""
    loss: Tensor = torch.ops.mcfa_fast.kl_forward(mean, logvar, reduction)
    return loss


def l1(instances: Tensor, table: Tensor, labels: Optional[Tensor], reduction: str) -> Tensor:
    """The L1 distance of each instance from its row of the table, reduced."""
    loss: Tensor = torch.ops.mcfa_fast.l1_forward(instances, table, labels, reduction)
    return loss


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor, power: float) -> Tensor:
    """``mean + exp(power · logvar) · noise``."""
    samples: Tensor = torch.ops.mcfa_fast.reparameterize_forward(mean, logvar, noise, power)
    return samples


def vtov_with_references(
    visual: Tensor,
    labels: Tensor,
    references: Optional[Tensor],
    reference_labels: Optional[Tensor],
    temperature: Union[float, Tensor],
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
) -> Tensor:
    """VtoV of a batch whose instances also meet further ones, which are no anchors."""
    if references is None:
        raise ValueError("expected `references` beside `reference_labels`, but got None")
    if reference_labels is None:
        raise ValueError("expected `reference_labels` beside `references`, but got None")
    tau = _number(temperature)
    batch = anchor_key(
        visual, None, labels, None, None, tau, False, positives, normalize, ignore_index
    )
    further = anchor_key(
        visual,
        references,
        labels,
        reference_labels,
        None,
        tau,
        False,
        positives,
        normalize,
        ignore_index,
    )
    log_sum_exp = torch.logaddexp(batch.log_sum_exp, further.log_sum_exp)
    counts = batch.counts + further.counts
    number = counts.clamp(min=1).to(log_sum_exp.dtype)
    if positives == "out":
        of_positives = (batch.positives + further.positives) / number
    else:
        of_positives = torch.logaddexp(batch.positives, further.positives) - number.log()
    return _reduced(log_sum_exp - of_positives, counts > 0, reduction)


def contrastive_with_references(
    visual: Tensor,
    semantic: Optional[Tensor],
    labels: Tensor,
    references: Optional[Tensor],
    reference_labels: Optional[Tensor],
    temperature: Union[float, Tensor],
    vtov: bool,
    vtos: bool,
    stov: bool,
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
) -> ContrastiveLossValues:
    """:func:`contrastive`, whose VtoV may have references."""
    alone = references is None and reference_labels is None
    if alone or not vtov:
        return contrastive(
            visual,
            semantic,
            labels,
            temperature,
            vtov,
            vtos,
            stov,
            positives,
            reduction,
            normalize,
            ignore_index,
        )
    of_visual = vtov_with_references(
        visual,
        labels,
        references,
        reference_labels,
        temperature,
        positives,
        reduction,
        normalize,
        ignore_index,
    )
    if not vtos and not stov:
        zero = of_visual.new_zeros([])
        return ContrastiveLossValues(of_visual, zero, zero)
    losses = contrastive(
        visual,
        semantic,
        labels,
        temperature,
        False,
        vtos,
        stov,
        positives,
        reduction,
        normalize,
        ignore_index,
    )
    return ContrastiveLossValues(of_visual, losses.vtos, losses.stov)


def info_nce(
    anchors: Tensor,
    keys: Tensor,
    negatives: Optional[Tensor],
    temperature: Union[float, Tensor],
    reduction: str,
    normalize: bool,
) -> Tensor:
    """Cross entropy of each anchor's own key among all keys, or among it and the negatives."""
    _check_pairs(anchors, "anchors", keys, "keys")
    tau = _number(temperature)
    if negatives is None:
        sums = anchor_key(anchors, keys, None, None, None, tau, False, "out", normalize)
        return _mean_or_all(sums.log_sum_exp - sums.positives, reduction)
    # No negative is anybody's positive, whatever its label.
    nobody = torch.ones(len(negatives), dtype=torch.long, device=negatives.device)
    sums = anchor_key(
        anchors,
        negatives,
        torch.zeros(len(anchors), dtype=torch.long, device=anchors.device),
        nobody,
        None,
        tau,
        False,
        "out",
        normalize,
    )
    own = _row_similarities(anchors, keys, normalize, sums.log_sum_exp.dtype) / tau
    own = own.to(sums.log_sum_exp.dtype)
    return _mean_or_all(torch.logaddexp(sums.log_sum_exp, own) - own, reduction)


def clip(
    images: Tensor, texts: Tensor, temperature: Union[float, Tensor], normalize: bool
) -> Tensor:
    """Mean cross entropy of matching pairs, over texts and over images."""
    _check_pairs(images, "images", texts, "texts")
    sums = anchor_key(images, texts, None, None, None, temperature, True, "out", normalize)
    of_images = _mean_or_all(sums.log_sum_exp - sums.positives, "mean")
    of_texts = _mean_or_all(sums.key_log_sum_exp - sums.key_positives, "mean")
    return (of_images + of_texts) / 2


def nt_xent(
    views_a: Tensor, views_b: Tensor, temperature: Union[float, Tensor], reduction: str
) -> Tensor:
    """Cross entropy of each view's other view among all other views."""
    _check_pairs(views_a, "views_a", views_b, "views_b")
    views = torch.cat([views_a, views_b])
    labels = torch.arange(len(views_a), device=views_a.device).repeat(2)
    sums = anchor_key(views, None, labels, None, None, temperature)
    return _mean_or_all(sums.log_sum_exp - sums.positives, reduction)


def _check_pairs(a: Tensor, a_name: str, b: Tensor, b_name: str) -> None:
    """Raises unless row i of one belongs to row i of the other."""
    if a.dim() != 2:
        raise ValueError(f"expected `{a_name}` to have shape [N, D], but got {list(a.shape)}")
    if a.shape != b.shape:
        raise ValueError(
            f"expected `{b_name}` to have the shape of `{a_name}`, {list(a.shape)}, but got "
            f"{list(b.shape)}"
        )


def _row_similarities(a: Tensor, b: Tensor, normalize: bool, dtype: torch.dtype) -> Tensor:
    """The dot product of each row of a with the same row of b."""
    a, b = a.to(dtype), b.to(dtype)
    if normalize:
        a, b = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
    return (a * b).sum(dim=1)


def _mean_or_all(losses: Tensor, reduction: str) -> Tensor:
    return _reduced(losses, torch.ones_like(losses, dtype=torch.bool), reduction)


def _reduced(losses: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """Losses of the anchors that count, or their sum or mean."""
    if reduction not in ("sum", "mean", "none"):
        raise ValueError(
            f"expected `reduction` to be 'sum', 'mean' or 'none', but got '{reduction}'"
        )
    losses = torch.where(counted, losses, torch.zeros_like(losses))
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / counted.sum().clamp(min=1)
