"""The losses of pairs of the global batch: two views, two towers, queues of negatives.

Each function takes what its twin in :mod:`mcfa_fast.ops` takes, and the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from mcfa_fast import ops
from mcfa_fast.distributed.call import Call, as_tensor, begin, check_call
from mcfa_fast.distributed.pairs import anchor_key
from mcfa_fast.distributed.sums import losses_of, reduced_over_ranks

if TYPE_CHECKING:
    from mcfa_fast.distributed.ranks import Given

_NO_LABEL = -100  # none of those that number the rows


def info_nce(
    anchors: Tensor,
    keys: Tensor,
    negatives: Tensor | None,
    temperature: float | Tensor,
    reduction: str,
    normalize: bool,
    group: Given,
) -> Tensor:
    """InfoNCE against the keys, or the negatives, of all ranks."""
    call = begin(
        group,
        "InfoNCE over ranks",
        {"anchors": anchors, "keys": keys, "negatives": negatives},
        {},
        temperature,
        {"reduction": reduction, "normalize": normalize},
        lambda: check_call(
            ops.info_nce, (anchors, keys, negatives), temperature, reduction, normalize
        ),
    )
    tau = as_tensor(temperature)
    options = ("out", normalize, _NO_LABEL)
    rows = call.rows["anchors"]
    if negatives is None:
        own = _numbers(call, "anchors")
        sums: Sequence[Tensor] = anchor_key(
            call.members, anchors, keys, own, own, tau, False, *options, rows, call.rows["keys"]
        )[:3]
    else:
        to_negatives = anchor_key(
            call.members,
            negatives,
            anchors,
            torch.ones(len(negatives), dtype=torch.int64, device=negatives.device),
            torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device),
            tau,
            True,
            *options,
            call.rows["negatives"],
            rows,
        )
        log_sum_exp = to_negatives.key_log_sum_exp
        a, b = (rows.to(log_sum_exp.dtype) for rows in (anchors, keys))
        a, b = (unit(a, dim=1), unit(b, dim=1)) if normalize else (a, b)
        own_key = ((a * b).sum(dim=1) / tau).to(log_sum_exp.dtype)
        sums = (torch.logaddexp(log_sum_exp, own_key), own_key, torch.ones_like(own_key))
    return _over_all(call, sums, reduction)


def clip(
    images: Tensor, texts: Tensor, temperature: float | Tensor, normalize: bool, group: Given
) -> Tensor:
    """The loss of two towers: texts travel, each similarity serves both directions."""
    call = begin(
        group,
        "the loss of two towers over ranks",
        {"images": images, "texts": texts},
        {},
        temperature,
        {"normalize": normalize},
        lambda: check_call(ops.clip, (images, texts), temperature, normalize),
    )
    numbers = _numbers(call, "images")
    sums = anchor_key(
        call.members,
        images,
        texts,
        numbers,
        numbers,
        as_tensor(temperature),
        True,
        "out",
        normalize,
        _NO_LABEL,
        call.rows["images"],
        call.rows["texts"],
    )
    both = [torch.cat(sides) for sides in zip(sums[:3], sums[3:], strict=True)]
    return _over_all(call, both, "mean")


def nt_xent(
    views_a: Tensor, views_b: Tensor, temperature: float | Tensor, reduction: str, group: Given
) -> Tensor:
    """NT-Xent: VtoV of both views, where each instance is a class."""
    call = begin(
        group,
        "NT-Xent over ranks",
        {"views_a": views_a, "views_b": views_b},
        {},
        temperature,
        {"reduction": reduction},
        lambda: check_call(ops.nt_xent, (views_a, views_b), temperature, reduction),
    )
    sums = anchor_key(
        call.members,
        torch.cat([views_a, views_b]),
        None,
        _numbers(call, "views_a").repeat(2),
        None,
        as_tensor(temperature),
        False,
        "out",
        True,
        _NO_LABEL,
        [2 * count for count in call.rows["views_a"]],
        None,
    )
    return _over_all(call, sums[:3], reduction)


def _numbers(call: Call, name: str) -> Tensor:
    """This rank's rows, numbered through all ranks."""
    before = sum(call.rows[name][: call.members.rank])
    count = call.rows[name][call.members.rank]
    return torch.arange(before, before + count, device=call.device)


def _over_all(call: Call, sums: Sequence[Tensor], reduction: str) -> Tensor:
    """The losses of anchors all of which count."""
    losses = reduced_over_ranks(call.members, {"": losses_of(sums, "out")}, reduction)
    return call.members.scaled(losses[""])
