"""Sums over all pairs of a rank's anchors with the keys of every rank, in linear memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mcfa_fast.distributed.blocks import block_gradients, block_sums
from mcfa_fast.distributed.ranks import Members, Transfer
from mcfa_fast.distributed.schedule import Visit, visits
from mcfa_fast.ops import AnchorKeySums


class Pairs(NamedTuple):
    """What a sum over pairs takes besides its rows."""

    members: Members
    visits: list[Visit]
    key_side: bool
    positives: str
    normalize: bool
    ignore_index: int


def anchor_key(
    members: Members,
    anchors: Tensor,
    keys: Tensor | None,
    anchor_labels: Tensor,
    key_labels: Tensor | None,
    temperature: Tensor,
    key_side: bool,
    positives: str,
    normalize: bool,
    ignore_index: int,
    rows: Sequence[int],
    key_rows: Sequence[int] | None,
) -> AnchorKeySums:
    """What :func:`mcfa_fast.ops.anchor_key` gives with the anchors and keys of all ranks, of which
    this rank gets the sums of its own rows.

    Differentiating it is a matter of all ranks: gradients of pairs that another rank has computed
    come from there. A rank's rows get their complete gradients, the temperature those of the pairs
    that were computed here.

    Args:
        members: The ranks.
        anchors: This rank's, [N, D].
        keys: This rank's, [M, D]; None where anchors are their own keys.
        anchor_labels: [N] int64.
        key_labels: [M] int64; None without keys.
        temperature: 0-dim.
        key_side: Whether the sums of keys over anchors are wanted, too; they are the anchors' own
            without keys.
        positives: ``"out"`` or ``"in"``.
        normalize: Divide each row by its norm first.
        ignore_index: Rows with this label are in no pair.
        rows: Number of anchors of each rank.
        key_rows: Number of keys of each rank; None without keys.
    """
    pairs = Pairs(
        members,
        visits(members.rank, rows, key_rows),
        key_side or keys is None,
        positives,
        normalize,
        ignore_index,
    )
    sums = _PairSums.apply(anchors, keys, temperature, anchor_labels, key_labels, pairs)
    return AnchorKeySums(*sums)


class _Side:
    """Sums of rows that grow block by block."""

    def __init__(self, sums: Sequence[Tensor], positives: str):
        self.log_sum_exp, self.positives, self.counts = sums
        self._add = torch.logaddexp if positives == "in" else torch.add

    def add(self, rows: slice, sums: Sequence[Tensor]) -> None:
        log_sum_exp, positives, counts = sums
        dtype = self.log_sum_exp.dtype
        own = self.log_sum_exp[rows]
        torch.logaddexp(own, log_sum_exp.to(dtype), out=own)
        own = self.positives[rows]
        self._add(own, positives.to(dtype), out=own)
        self.counts[rows] += counts.to(torch.int64)

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.log_sum_exp, self.positives, self.counts


class _PairSums(torch.autograd.Function):
    """One block at a time: own rows with own, then with those of each host.

    The gradient of a pair needs only the log-sum-exps over *all* pairs of its two rows and the
    gradients of their sums, so that backward goes through the same blocks with these.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor | None,
        temperature: Tensor,
        anchor_labels: Tensor,
        key_labels: Tensor | None,
        pairs: Pairs,
    ) -> tuple[Tensor, ...]:
        members, options = pairs.members, (pairs.positives, pairs.normalize, pairs.ignore_index)
        travelling = anchors if keys is None else keys
        labels = anchor_labels if key_labels is None else key_labels
        hosts = _hosts(pairs, [_on_wire(travelling, members), labels])
        own = block_sums(
            anchors,
            keys,
            anchor_labels,
            key_labels,
            temperature,
            pairs.key_side and keys is not None,
            *options,
        )
        side = _Side(own[:3], pairs.positives)
        key_side = _Side(own[3:], pairs.positives) if keys is not None else side
        kept: list[Tensor] = []
        returning: list[tuple[slice, Transfer]] = []
        for visit, (rows, labels_there) in hosts:
            if members.options.exchange == "gather":
                kept += [rows, labels_there]
            sums = None
            if visit.own.stop > 0:
                sums = block_sums(
                    anchors[visit.own],
                    rows.to(anchors.dtype),
                    anchor_labels[visit.own],
                    labels_there,
                    temperature,
                    pairs.key_side,
                    *options,
                )
                side.add(visit.own, sums[:3])
            if pairs.key_side:
                back = [] if sums is None else [torch.stack([s.double() for s in sums[3:]])]
                count = visit.sent.stop - visit.sent.start
                waiting = anchors.new_empty(3, count, dtype=torch.float64)
                transfer = members.transfer(
                    "sums of rows", visit.host, back, visit.guest, [waiting]
                )
                returning.append((visit.sent, transfer))
        for rows_here, transfer in returning:
            (sums_there,) = transfer.wait()
            key_side.add(rows_here, sums_there.unbind())
        ctx.pairs = pairs
        key_sums = key_side.all() if keys is not None else _nothing(side)
        ctx.save_for_backward(
            anchors,
            keys,
            temperature,
            anchor_labels,
            key_labels,
            side.log_sum_exp,
            side.positives,
            *key_sums[:2],
            *kept,
        )
        ctx.mark_non_differentiable(side.counts, key_sums[2])
        return *side.all(), *key_sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pairs: Pairs = ctx.pairs
        members, options = pairs.members, (pairs.positives, pairs.normalize, pairs.ignore_index)
        anchors, keys, temperature, anchor_labels, key_labels, *rest = ctx.saved_tensors
        sums, key_sums, kept = rest[:2], rest[2:4], rest[4:]
        symmetric = keys is None
        travelling, labels = (anchors, anchor_labels) if symmetric else (keys, key_labels)
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[0 if symmetric else 1]]

        terms = torch.stack([*grads[:2], *sums], dim=1)
        key_terms = terms if symmetric else torch.stack([*grads[3:5], *key_sums], dim=1)
        leaving = [key_terms] if pairs.key_side else []
        if members.options.exchange == "ring":
            leaving = [_on_wire(travelling, members), labels, *leaving]
        hosts = _hosts(pairs, leaving)
        grad_anchors, grad_keys, grad_temperature = block_gradients(
            anchors,
            keys,
            anchor_labels,
            key_labels,
            temperature,
            terms,
            key_terms if pairs.key_side and not symmetric else None,
            wanted,
            *options,
        )
        # Added up in the dtype of sums, which is wider than that of 16-bit rows.
        grad_anchors = _as(grad_anchors, terms.dtype)
        grad_keys = _as(grad_keys, terms.dtype)
        grad_travelling = grad_anchors if symmetric else grad_keys

        returning: list[tuple[slice, Transfer]] = []

        def collect() -> None:
            for rows_here, transfer in returning:
                (grad_rows,) = transfer.wait()
                if grad_travelling is not None:
                    grad_travelling[rows_here] += grad_rows
            returning.clear()

        for step, (visit, there) in enumerate(hosts):
            if members.options.exchange == "gather":
                there = [*kept[2 * step : 2 * step + 2], *there]
            back = []
            if visit.own.stop > 0:
                grad_own, grad_theirs, grad_tau = block_gradients(
                    anchors[visit.own],
                    there[0].to(anchors.dtype),
                    anchor_labels[visit.own],
                    there[1],
                    temperature,
                    terms[visit.own],
                    there[2] if pairs.key_side else None,
                    wanted,
                    *options,
                )
                if grad_own is not None and grad_anchors is not None:
                    grad_anchors[visit.own] += grad_own
                if grad_theirs is not None:
                    back = [_on_wire(grad_theirs, members)]
                grad_temperature += grad_tau
            collect()  # of the step before, so that few are on their way at a time
            if wanted[1]:
                waiting = torch.empty_like(_on_wire(travelling[visit.sent], members))
                transfer = members.transfer(
                    "gradients of rows", visit.host, back, visit.guest, [waiting]
                )
                returning.append((visit.sent, transfer))
        collect()
        return (
            _as(grad_anchors, anchors.dtype),
            _as(grad_keys, anchors.dtype),
            grad_temperature.to(temperature),
            None,
            None,
            None,
        )


def _hosts(pairs: Pairs, leaving: Sequence[Tensor]) -> Iterator[tuple[Visit, list[Tensor]]]:
    """Each visit with what the host has sent of these, which have one entry per row here.

    The first are on their way when this returns, and the next while one is worked on; in exchange
    "gather" all of them are from the beginning.
    """
    members = pairs.members

    def start(visit: Visit) -> Transfer:
        count = visit.theirs.stop - visit.theirs.start
        return members.transfer(
            "rows",
            visit.guest,
            [tensor[visit.sent] for tensor in leaving],
            visit.host,
            [tensor.new_empty(count, *tensor.shape[1:]) for tensor in leaving],
        )

    ahead = len(pairs.visits) if members.options.exchange == "gather" else 1
    transfers = [start(visit) for visit in pairs.visits[:ahead]]

    def arrived() -> Iterator[tuple[Visit, list[Tensor]]]:
        for step, visit in enumerate(pairs.visits):
            there = transfers.pop(0).wait()
            transfers.extend(start(later) for later in pairs.visits[step + ahead :][:1])
            yield visit, there

    return arrived()


def _on_wire(rows: Tensor, members: Members) -> Tensor:
    """Rows in the dtype in which they travel."""
    return rows.detach().to(members.options.wire_dtype or rows.dtype).contiguous()


def _as(grad: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if grad is None else grad.to(dtype)


def _nothing(side: _Side) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of no rows, where keys have none of their own."""
    return side.log_sum_exp.new_empty(0), side.positives.new_empty(0), side.counts.new_empty(0)
