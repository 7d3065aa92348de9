"""The L1 reconstruction terms of a batch, and the sampling of its latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
from measure import PARTS, check, differentiating
from shapes import Shape


class Case(NamedTuple):
    job: str
    """``"reconstruction"`` or ``"sampling"``."""
    shape: Shape
    part: str = "both"
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.job}-{self.shape}-{self.part}-t{self.threads}"


BATCHES = {"reconstruction": shapes.reconstruction_batch, "sampling": shapes.sampling_batch}
CONTENDERS = {"reconstruction": peers.reconstruction, "sampling": peers.sampling}
FLOORS = {"reconstruction": floor.reconstruction, "sampling": floor.sampling}


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case(job, shapes.TINY, threads=1) for job in BATCHES]
    jobs = {"reconstruction": shapes.RECONSTRUCTION, "sampling": shapes.SAMPLING}
    return [
        case
        for job, (episode, middle, large) in jobs.items()
        for case in (
            Case(job, episode, threads=1),
            Case(job, middle),
            *(Case(job, large, part) for part in PARTS),
            Case(job, large, threads=1),
        )
    ]


def test_reconstruction(case: Case, record: Callable) -> None:
    batch = BATCHES[case.job](case.shape)
    contenders = [CONTENDERS[case.job](name) for name in (peers.LIBRARY, peers.PLAIN)]
    for contender in contenders:
        check(contender, batch)
    record(
        [differentiating(contender, batch, case.part) for contender in contenders],
        FLOORS[case.job](case.shape, case.part),
        job=case.job,
        **case.shape._asdict(),
        part=case.part,
        threads=case.threads,
    )
