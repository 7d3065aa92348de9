"""Losses of anchors from sums over pairs, and their reduction over ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mcfa_fast.distributed.ranks import Members


class AnchorLosses(NamedTuple):
    """Losses of anchors, 0 where they do not count."""

    losses: Tensor
    valid: Tensor


def losses_of(sums: Sequence[Tensor], positives: str) -> AnchorLosses:
    """The loss of each anchor from its sums; 0 without a positive."""
    log_sum_exp, of_positives, counts = sums
    valid = counts > 0
    number = counts.clamp(min=1).to(log_sum_exp.dtype)
    # What has no positive may be minus infinity, of which there is no gradient.
    log_sum_exp = torch.where(valid, log_sum_exp, 0)
    of_positives = torch.where(valid, of_positives, 0)
    mean = of_positives / number if positives == "out" else of_positives - number.log()
    return AnchorLosses(log_sum_exp - mean, valid)


def together(
    sums: Sequence[Tensor], others: Sequence[Tensor], positives: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the same anchors over two sets of keys."""
    add = torch.logaddexp if positives == "in" else torch.add
    return torch.logaddexp(sums[0], others[0]), add(sums[1], others[1]), sums[2] + others[2]


def reduced(own: AnchorLosses, reduction: str) -> Tensor:
    """Losses of anchors that every rank has."""
    if reduction == "none":
        return own.losses
    total = own.losses.sum()
    return total if reduction == "sum" else total / own.valid.sum().clamp(min=1)


def reduced_over_ranks(
    members: Members, own: Mapping[str, AnchorLosses], reduction: str
) -> dict[str, Tensor]:
    """Losses of this rank's anchors, reduced over those of all ranks."""
    if reduction == "none" or not own:
        return {name: losses.losses for name, losses in own.items()}
    parts = [part for losses in own.values() for part in (losses.losses.sum(), losses.valid.sum())]
    totals = members.total("sum of losses", torch.stack([part.double() for part in parts]))
    return {
        name: (total if reduction == "sum" else total / count.clamp(min=1)).to(losses.losses.dtype)
        for (name, losses), (total, count) in zip(own.items(), totals.split(2), strict=True)
    }


def over_ranks(
    members: Members, own: Sequence[Tensor], positives: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of anchors that every rank has, over the keys of all ranks; the same bits on each.

    Their gradient is that of this rank's part in them, for which no rank needs another.
    """
    gathered = members.all_gather(
        "sums of classes", torch.stack([part.detach().double() for part in own])
    )
    parts = [
        [part.to(mine.dtype) for part, mine in zip(sums, own, strict=True)] for sums in gathered
    ]
    parts[members.rank] = list(own)
    log_sum_exps, of_positives, counts = (torch.stack(part) for part in zip(*parts, strict=True))
    count = counts.sum(dim=0)
    present = count > 0
    log_sum_exps = torch.where(present, log_sum_exps, 0)
    of_positives = torch.where(present, of_positives, 0)
    combined = of_positives.logsumexp(dim=0) if positives == "in" else of_positives.sum(dim=0)
    return log_sum_exps.logsumexp(dim=0), combined, count
