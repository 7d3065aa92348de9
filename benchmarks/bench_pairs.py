"""Losses of anchors and keys: two towers, and a memory of past batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
from measure import check_close, differentiating, evaluate
from shapes import Shape


class Case(NamedTuple):
    """One comparison of the library with ``others``."""

    loss: str
    shape: Shape
    others: tuple[str, ...]
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.loss}-{self.shape}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    plain = (peers.PLAIN, peers.COMPILED)
    rivals = (*plain, peers.METRIC_LEARNING)
    if quick:
        return [
            Case("towers", shapes.TINY_TOWERS, plain, threads=1),
            Case("bank", shapes.TINY_BANK, rivals, threads=1),
        ]
    return [
        Case("towers", shapes.TOWERS, plain),
        Case("bank", shapes.BANK_PEERS, rivals),
        Case("bank", shapes.BANK, ()),  # others form matrices of many gigabytes
    ]


def test_pairs(case: Case, record: Callable, quick: bool) -> None:
    batch = (shapes.tower_batch if case.loss == "towers" else shapes.bank_batch)(case.shape)
    contenders = [peers.pairs(name, case.loss) for name in (peers.LIBRARY, *case.others)]
    skipped = {c.name: c.reason_to_skip(case.shape, quick=quick) for c in contenders}
    able = [contender for contender in contenders if skipped[contender.name] is None]
    if case.others:  # the float64 oracle forms matrices, too
        expected = evaluate(able[0].oracle, shapes.in_double(batch))
        for contender in able:
            check_close(contender.name, evaluate(contender.compute, batch), expected)
    record(
        [differentiating(contender, batch, "both") for contender in able],
        floor.pairs(case.loss, case.shape),
        job="pairs",
        loss=case.loss,
        **case.shape._asdict(),
        part="both",
        threads=case.threads,
        skipped={name: reason for name, reason in skipped.items() if reason is not None},
    )
