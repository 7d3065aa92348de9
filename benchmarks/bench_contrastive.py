"""The contrastive losses: each and fused; forward, backward and both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
from measure import PARTS, check_close, differentiating, evaluate
from shapes import Shape
from torch import Tensor

ALL = (peers.PLAIN, peers.COMPILED, peers.METRIC_LEARNING, peers.AUTHORS)
FAST = (peers.PLAIN, peers.COMPILED)


class Case(NamedTuple):
    """One comparison of the library with ``others``."""

    shape: Shape
    others: tuple[str, ...] = (peers.PLAIN,)
    loss: str = "fused"
    positives: str = "out"
    part: str = "both"
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.loss}-{self.positives}-{self.shape}-{self.part}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [
            Case(shapes.TINY, ALL, threads=1),
            Case(shapes.TINY, loss="vtov", part="backward", threads=1),
            Case(shapes.TINY_PAIRS, (peers.PLAIN, peers.LIGHTLY), loss="vtov", threads=1),
        ]
    episode, middle, large = shapes.EPISODE, shapes.MIDDLE, shapes.LARGE
    without_compiling = (peers.PLAIN, peers.METRIC_LEARNING, peers.AUTHORS)
    return [
        Case(episode, ALL),
        Case(shapes.LONG_EPISODE, without_compiling),
        Case(middle, ALL),
        Case(large, ALL),
        Case(shapes.WIDE, FAST),
        *(
            Case(shape, part=part)
            for shape in (episode, middle, large)
            for part in ("forward", "backward")
        ),
        *(Case(shape, threads=1) for shape in (episode, middle, large)),
        *(Case(shape, positives="in") for shape in (middle, large)),
        *(Case(large, loss=loss, part=part) for loss in ("vtov", "vtos", "stov") for part in PARTS),
        Case(shapes.PAIRS, (peers.PLAIN, peers.METRIC_LEARNING, peers.LIGHTLY), loss="vtov"),
    ]


@functools.cache
def expected(oracle: Callable, shape: Shape) -> list[Tensor]:
    """The float64 value and gradients, which several cases share."""
    return evaluate(oracle, shapes.in_double(shapes.contrastive_batch(shape)))


def test_contrastive(case: Case, record: Callable, quick: bool) -> None:
    batch = shapes.contrastive_batch(case.shape)
    runners, skipped = [], {}
    for name in (peers.LIBRARY, *case.others):
        contender = peers.contrastive(name, case.loss, case.positives)
        reason = contender.reason_to_skip(case.shape, quick=quick)
        if reason is not None:
            skipped[name] = reason
            continue
        actual = evaluate(contender.compute, batch)
        check_close(name, actual, expected(contender.oracle, case.shape))
        runners.append(differentiating(contender, batch, case.part))
    record(
        runners,
        floor.contrastive(case.loss, case.shape, case.part),
        job="contrastive",
        loss=case.loss,
        positives=case.positives,
        **case.shape._asdict(),
        part=case.part,
        threads=case.threads,
        skipped=skipped,
    )
