"""The losses of the global batch, put together from sums over pairs.

Each function takes what its twin in :mod:`mcfa_fast.ops` takes, and the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mcfa_fast import ops
from mcfa_fast.distributed.call import as_tensor, begin, check_call
from mcfa_fast.distributed.pairs import anchor_key
from mcfa_fast.distributed.sums import (
    AnchorLosses,
    losses_of,
    over_ranks,
    reduced,
    reduced_over_ranks,
    together,
)
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from mcfa_fast.distributed.ranks import Given

_NO_CLASS = -1


def contrastive(
    visual: Tensor,
    semantic: Tensor | None,
    labels: Tensor,
    references: Tensor | None,
    reference_labels: Tensor | None,
    temperature: float | Tensor,
    vtov: bool,
    vtos: bool,
    stov: bool,
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
    group: Given,
) -> ContrastiveLossValues:
    """VtoV, also over references of all ranks, VtoS and StoV, those that are asked for.

    Raises:
        RankError: Another rank has failed, has ended, or has not answered in time.
        ValueError: As without a group; and if the ranks do not agree.
        TypeError: A wrong dtype.
    """
    names = ("VtoV", "VtoS", "StoV")
    asked = [name for name, wanted in zip(names, (vtov, vtos, stov), strict=True) if wanted]

    def check() -> None:
        options = (positives, reduction, normalize, ignore_index)
        alone = semantic is None
        tensors: tuple[Tensor | None, ...] = (visual, semantic, labels)
        check_call(ops.contrastive, tensors, temperature, alone, not alone, False, *options)
        if semantic is not None:
            _check_classes(labels, len(semantic), ignore_index)
        if references is not None or reference_labels is not None:
            tensors = (visual, labels, references, reference_labels)
            check_call(ops.vtov_with_references, tensors, temperature, *options)

    call = begin(
        group,
        f"{', '.join(asked)} over ranks",
        {"visual": visual, "references": references},
        {"semantic": semantic},
        temperature,
        {
            "positives": positives,
            "reduction": reduction,
            "normalize": normalize,
            "ignore_index": ignore_index,
        },
        check,
    )
    members, tau, labels = call.members, as_tensor(temperature), labels.long()
    own_losses: dict[str, AnchorLosses] = {}
    of_classes = None
    if vtov:
        options = (positives, normalize, ignore_index)
        rows = call.rows["visual"]
        sums: Sequence[Tensor] = anchor_key(
            members, visual, None, labels, None, tau, False, *options, rows, None
        )[:3]
        if references is not None and reference_labels is not None:
            # The batch goes to the references, of which there are more.
            further = anchor_key(
                members,
                references,
                visual,
                reference_labels.long(),
                labels,
                tau,
                True,
                *options,
                call.rows["references"],
                rows,
            )[3:]
            sums = together(sums, further, positives)
        own_losses["vtov"] = losses_of(sums, positives)
    if semantic is not None and (vtos or stov):
        classes = torch.arange(len(semantic), device=labels.device)
        if 0 <= ignore_index < len(semantic):  # a class is a candidate, even that one
            labels = torch.where(labels == ignore_index, _NO_CLASS, labels)
            ignore_index = _NO_CLASS
        cross = ops.anchor_key(
            visual,
            semantic,
            labels,
            classes,
            None,
            tau,
            stov,
            positives,
            normalize,
            ignore_index,
        )
        if vtos:
            own_losses["vtos"] = losses_of(cross[:3], positives)
        if stov:
            of_classes = losses_of(over_ranks(members, cross[3:], positives), positives)
    losses = reduced_over_ranks(members, own_losses, reduction)
    if of_classes is not None:
        losses["stov"] = reduced(of_classes, reduction)
    zero = next(iter(losses.values())).new_zeros(())
    return ContrastiveLossValues(
        *(members.scaled(losses.get(name, zero)) for name in ContrastiveLossValues._fields)
    )


def _check_classes(labels: Tensor, classes: int, ignore_index: int) -> None:
    """Raises for a label that is no class; the operator itself would do so after an exchange."""
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if labels.is_cuda:
        torch._assert_async(~wrong.any(), "a label is outside 0..C-1")
    elif wrong.any():
        index = int(wrong.nonzero()[0])
        raise ValueError(
            f"expected `labels` in [0, {classes}) or equal to `ignore_index`, but got "
            f"{int(labels[index])} at index {index}"
        )
