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
    if isinstance(temperature, Tensor):
        tau = temperature
    elif torch.jit.is_scripting():
        tau = torch.full([], temperature, dtype=torch.float64)
    elif torch.compiler.is_compiling():
        # A product, unlike torch.full, takes a number that changes from call to call as an input
        # of the graph instead of a constant that asks for another graph.
        tau = torch.ones([], dtype=torch.float64) * temperature
    else:
        tau = torch.full([], temperature, dtype=torch.float64)
    losses = torch.ops.mcfa_fast.contrastive_forward(
        visual,
        semantic,
        labels,
        tau,
        vtov,
        vtos,
        stov,
        positives,
        reduction,
        normalize,
        ignore_index,
    )
    return ContrastiveLossValues(losses[0], losses[1], losses[2])


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
