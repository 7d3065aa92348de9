"""The contrastive losses of the global batch, put together from sums over pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Union

import torch
from torch import Tensor

from mcfa_fast import ops
from mcfa_fast.distributed.agreement import Value, agree
from mcfa_fast.distributed.pairs import anchor_key
from mcfa_fast.distributed.ranks import Members, Ranks
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_NO_CLASS = -1


class AnchorLosses(NamedTuple):
    """Losses of anchors, 0 where they do not count."""

    losses: Tensor
    valid: Tensor


class Options(NamedTuple):
    """What the losses share."""

    temperature: Union[float, Tensor]
    positives: str
    reduction: str
    normalize: bool
    ignore_index: int


def contrastive(
    visual: Tensor,
    semantic: Tensor | None,
    labels: Tensor,
    temperature: float | Tensor,
    vtov: bool,
    vtos: bool,
    stov: bool,
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
    group: Ranks | ProcessGroup,
) -> ContrastiveLossValues:
    """:func:`mcfa_fast.ops.contrastive` of the global batch, of which each rank has some rows.

    Raises:
        RankError: Another rank has failed, has ended, or has not answered in time.
        ValueError: As without a group; and if the ranks do not agree.
        TypeError: A wrong dtype.
    """
    members = Members(group)
    if members.size == 1:
        return ops.contrastive(
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
    wanted = (vtov, vtos, stov)
    options = Options(temperature, positives, reduction, normalize, ignore_index)
    operation = " and ".join(
        name for name, asked in zip(("VtoV", "VtoS", "StoV"), wanted, strict=True) if asked
    )

    def same() -> dict[str, Value]:
        _check(visual, semantic, labels, options)
        return {
            "the losses asked for": operation,
            **described("visual", visual),
            **({} if semantic is None else described("semantic", semantic)),
            "the number of classes": None if semantic is None else len(semantic),
            **described_options(members, options),
        }

    own = {"rows": len(visual) if visual.dim() > 0 else 0}
    operation = f"{operation} over ranks"
    every = agree(members, operation, visual.device, same, own)
    tau = as_tensor(temperature)
    labels = labels.long()
    if semantic is not None and 0 <= ignore_index < len(semantic):
        labels = torch.where(labels == ignore_index, _NO_CLASS, labels)
        options = options._replace(ignore_index=_NO_CLASS)
    own_losses: dict[str, AnchorLosses] = {}
    of_classes = None
    if vtov:
        sums = anchor_key(
            members,
            visual,
            None,
            labels,
            None,
            tau,
            False,
            positives,
            normalize,
            options.ignore_index,
            [entry["rows"] for entry in every],
            None,
        )
        own_losses["vtov"] = losses_of(sums[:3], positives)
    if semantic is not None and (vtos or stov):
        classes = torch.arange(len(semantic), device=labels.device)
        sums = ops.anchor_key(
            visual,
            semantic,
            labels,
            classes,
            None,
            tau,
            stov,
            positives,
            normalize,
            options.ignore_index,
        )
        if vtos:
            own_losses["vtos"] = losses_of(sums[:3], positives)
        if stov:
            of_classes = losses_of(_over_ranks(members, sums[3:], positives), positives)
    losses = over_ranks(members, own_losses, reduction)
    if of_classes is not None:
        losses["stov"] = _reduced(of_classes, reduction)
    zero = next(iter(losses.values())).new_zeros(())
    return ContrastiveLossValues(
        *(members.scaled(losses.get(name, zero)) for name in ContrastiveLossValues._fields)
    )


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


def over_ranks(
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


def _reduced(own: AnchorLosses, reduction: str) -> Tensor:
    if reduction == "none":
        return own.losses
    total = own.losses.sum()
    return total if reduction == "sum" else total / own.valid.sum().clamp(min=1)


def _over_ranks(
    members: Members, own: Sequence[Tensor], positives: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of classes over the instances of all ranks, the same bits on each.

    Their gradient is that of this rank's part in them, for which no rank needs another.
    """
    gathered = members.all_gather(
        "sums of classes", torch.stack([part.detach().double() for part in own])
    )
    parts = [
        [part.to(mine.dtype) for part, mine in zip(sums, own, strict=True)] for sums in gathered
    ]
    parts[members.rank] = list(own)
    log_sum_exps, of_positives, counts = (
        torch.stack(column) for column in zip(*parts, strict=True)
    )
    count = counts.sum(dim=0)
    present = count > 0
    log_sum_exps = torch.where(present, log_sum_exps, 0)
    of_positives = torch.where(present, of_positives, 0)
    combined = of_positives.logsumexp(dim=0) if positives == "in" else of_positives.sum(dim=0)
    return log_sum_exps.logsumexp(dim=0), combined, count


def _check(visual: Tensor, semantic: Tensor | None, labels: Tensor, options: Options) -> None:
    """Raises the errors of the operator itself, at the cost of no rows."""
    switches = (semantic is None, semantic is not None, False)
    rest = (options.positives, options.reduction, options.normalize, options.ignore_index)

    with torch.no_grad():
        # Shapes; then all that tensors without data do not show.
        shapes = (
            None if given is None else given.to("meta") for given in (visual, semantic, labels)
        )
        ops.contrastive(*shapes, 1.0, *switches, *rest)
        ops.contrastive(visual[:0], semantic, labels[:0], options.temperature, *switches, *rest)
        if semantic is None or len(labels) == 0:
            return
        wrong = (labels != options.ignore_index) & ((labels < 0) | (labels >= len(semantic)))
        if labels.is_cuda:
            torch._assert_async(~wrong.any(), "a label is outside 0..C-1")
        elif wrong.any():
            index = int(wrong.nonzero()[0])
            raise ValueError(
                f"expected `labels` in [0, {len(semantic)}) or equal to `ignore_index`, but got "
                f"{int(labels[index])} at index {index}"
            )


def described(name: str, tensor: Tensor) -> dict[str, Value]:
    """What has to be the same of a tensor on every rank."""
    return {
        f"the number of columns of `{name}`": tensor.shape[1],
        f"the dtype of `{name}`": str(tensor.dtype),
        f"whether `{name}` requires a gradient": requires_grad(tensor),
    }


def described_options(members: Members, options: Options) -> dict[str, Value]:
    """What has to be the same of the options on every rank."""
    ranks = members.options
    return {
        "`temperature`": repr(float(as_tensor(options.temperature).detach())),
        "whether `temperature` requires a gradient": requires_grad(options.temperature),
        "`positives`": options.positives,
        "`reduction`": options.reduction,
        "`normalize`": options.normalize,
        "`ignore_index`": options.ignore_index,
        "`gradients`": ranks.gradients,
        "`exchange`": ranks.exchange,
        "`wire_dtype`": str(ranks.wire_dtype),
    }


def requires_grad(value: float | Tensor) -> bool:
    """Whether a gradient will be taken of it."""
    return torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad


def as_tensor(temperature: float | Tensor) -> Tensor:
    """A temperature as the operator takes it."""
    if isinstance(temperature, Tensor):
        return temperature
    return torch.tensor(temperature, dtype=torch.float64)
