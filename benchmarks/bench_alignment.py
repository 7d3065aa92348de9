"""Wasserstein alignment plus KL divergence of the instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
from measure import PARTS, check, differentiating
from shapes import Shape


class Case(NamedTuple):
    shape: Shape
    part: str = "both"
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.shape}-{self.part}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case(shapes.TINY, threads=1)]
    small, large = shapes.ALIGNMENT
    return [Case(small), *(Case(large, part) for part in PARTS), Case(large, threads=1)]


def test_alignment(case: Case, record: Callable) -> None:
    batch = shapes.alignment_batch(case.shape)
    contenders = [peers.alignment(name) for name in (peers.LIBRARY, peers.PLAIN)]
    for contender in contenders:
        check(contender, batch)
    record(
        [differentiating(contender, batch, case.part) for contender in contenders],
        floor.alignment(case.shape, case.part),
        job="alignment",
        **case.shape._asdict(),
        part=case.part,
        threads=case.threads,
    )
