"""Time and peak memory of the three losses, forward and backward, against N.

Every measurement is a process of its own, forked from a server that has loaded PyTorch but run
nothing, so that the process's peak memory is the measured call's.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import floor
import peers
import shapes
import torch
from measure import check, differentiating
from shapes import Shape

# A call that takes longer is timed once, without a call before it that warms up.
LONG_SECONDS = 30.0
BUDGET_SECONDS = 1.0


def jobs(quick: bool) -> Iterator[tuple[str, Shape, int]]:
    """Contender, shape and threads of each measurement."""
    if quick:
        yield from ((peers.LIBRARY, shape, 1) for shape in shapes.TINY_SCALING)
        yield from ((peers.PLAIN, shape, 1) for shape in shapes.TINY_SCALING)
        return
    for threads in shapes.THREADS:
        yield from ((peers.LIBRARY, shape, threads) for shape in shapes.SCALING)
    for name in (peers.PLAIN, peers.COMPILED, peers.METRIC_LEARNING, peers.AUTHORS):
        yield from ((name, shape, shapes.THREADS[-1]) for shape in shapes.SCALING_PEERS)


def measure(quick: bool) -> Iterator[dict[str, Any]]:
    """The record of each measurement, one after the other."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scaling"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        for name, shape, threads in jobs(quick):
            record = {
                "job": "scaling",
                "loss": "fused",
                "positives": "out",
                **shape._asdict(),
                "part": "both",
                "threads": threads,
                "seconds": {},
                "skipped": {},
            }
            reason = peers.contrastive(name).reason_to_skip(shape, quick=quick)
            if reason is None:
                record |= processes.submit(measure_here, name, shape, threads, quick).result()
            else:
                record["skipped"][name] = reason
            yield record


def measure_here(name: str, shape: Shape, threads: int, quick: bool) -> dict[str, Any]:
    """What the record says of one contender, measured in this process.

    Its value and gradients are checked on a batch of few rows first, which also loads what PyTorch
    loads on first use. Peak memory counts from there on and above the inputs.
    """
    torch.set_num_threads(threads)
    contender = peers.contrastive(name)
    check(contender, shapes.contrastive_batch(shape._replace(n=2 * shape.c)))

    batch = shapes.contrastive_batch(shape)
    call = differentiating(contender, batch, "both").execute
    forget_peak()
    before = peak_bytes()
    seconds = _time(call)
    peak = peak_bytes() - before
    if seconds < LONG_SECONDS or contender.compiles:
        first = _time(call)
        rounds = min(int(BUDGET_SECONDS / first), 200)
        seconds = median([first, *(_time(call) for _ in range(rounds))])

    meter = floor.Meter(256, 2**12, 2**18) if quick else floor.Meter()
    for _ in range(3):
        meter.sample()
    rates = meter.rates()
    return {
        "seconds": {name: seconds},
        "peak_bytes": {name: peak},
        "floor": floor.contrastive("fused", shape).seconds(rates),
        "rates": rates._asdict(),
    }


def curve(
    records: list[dict[str, Any]], quantity: str, name: str, threads: int
) -> tuple[list[int], list[float]]:
    """N and positive values of ``quantity`` (``"seconds"`` or ``"peak_bytes"``) of a contender."""
    points = {
        record["n"]: record[quantity][name]
        for record in records
        if record["job"] == "scaling" and record["threads"] == threads and name in record["seconds"]
    }
    kept = [(n, value) for n, value in sorted(points.items()) if value > 0]
    return [n for n, _ in kept], [value for _, value in kept]


def exponent(instances: list[int], values: list[float]) -> float | None:
    """The slope of log(value) against log(N) over the larger half of the points."""
    half = max(2, (len(instances) + 1) // 2)
    if len(instances) < half:
        return None
    logs = ([math.log(value) for value in axis[-half:]] for axis in (instances, values))
    return linear_regression(*logs).slope


def _time(call) -> float:
    start = time.perf_counter()
    call(None)
    return time.perf_counter() - start


def forget_peak() -> None:
    """Makes the present memory the peak, where the system can do that."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_bytes() -> int:
    """The largest resident memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
