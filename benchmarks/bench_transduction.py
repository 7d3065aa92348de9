"""Refining the scores of many images together: time, and memory above the inputs."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import floor
import peers
import pytest
import scaling
import shapes
import torch
from shapes import Shape
from torch import Tensor

from mcfa_fast.classifiers.transductive import log_posteriors
from mcfa_fast.classifiers.transductive_inputs import TransductionConfig


class Case(NamedTuple):
    shape: Shape
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.shape}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The sets of a quick or a full run."""
    return [Case(shapes.TINY, threads=1)] if quick else [Case(shapes.SET)]


def images(shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, features and labels of clusters that scores know only roughly."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(shape.n) % shape.c
    features = torch.randn(shape.n, shape.d, generator=generator)
    features += 0.7 * torch.randn(shape.c, shape.d, generator=generator)[labels]
    scores = torch.randn(shape.n, shape.c, generator=generator)
    scores[torch.arange(shape.n), labels] += 2
    return scores, features, labels


def measure_here(case: Case, quick: bool) -> dict[str, Any]:
    """One call, in this process, whose peak memory is then the call's."""
    torch.set_num_threads(case.threads)
    log_posteriors(*images(shapes.TINY)[:2])
    scores, features, labels = images(case.shape)
    scaling.forget_peak()
    before, start = scaling.peak_bytes(), time.perf_counter()
    found = log_posteriors(scores, features)
    seconds = time.perf_counter() - start
    peak = scaling.peak_bytes() - before
    right = (torch.from_numpy(found).argmax(dim=1) == labels).double().mean().item()
    meter = floor.Meter(256, 2**12, 2**18) if quick else floor.Meter()
    for _ in range(3):
        meter.sample()
    rates = meter.rates()
    n, d, c = case.shape
    rounds = TransductionConfig().rounds
    work = floor.Work(flops=n * n * d + 4 * rounds * n * d * c, exponentials=rounds * n * c)
    return {
        "seconds": {peers.LIBRARY: seconds},
        "peak_bytes": {peers.LIBRARY: peak},
        "floor": work.seconds(rates),
        "rates": rates._asdict(),
        "accuracy": right,
    }


def test_a_set_together(case: Case, benchmark: Any, quick: bool) -> None:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        # One call of a minute is one round.
        result = benchmark.pedantic(
            lambda: processes.submit(measure_here, case, quick).result(), rounds=1
        )
    assert result.pop("accuracy") == pytest.approx(1.0, abs=0.5 if quick else 0.01)
    benchmark.extra_info.update(
        job="transduction", **case.shape._asdict(), part="forward", threads=case.threads, **result
    )
