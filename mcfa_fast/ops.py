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
    gradient cost none. Memory is linear in N + M.

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
