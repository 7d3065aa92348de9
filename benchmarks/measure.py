"""Correctness first, then timing in alternating rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch
from floor import Meter
from peers import Contender
from shapes import in_double, leaves
from torch import Tensor

PARTS = ("forward", "backward", "both")

# float32 against float64, relative; the contenders that exponentiate without a shift need this.
VALUE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


class Runner(NamedTuple):
    """Something to time: ``execute(prepare())``, of which only ``execute`` counts."""

    name: str
    prepare: Callable[[], Any]
    execute: Callable[[Any], Any]


class Effort(NamedTuple):
    """How long to measure."""

    seconds: float = 4.0
    """Time of all rounds of a case, roughly."""
    rounds: tuple[int, int] = (3, 25)
    """Fewest and most."""
    round_seconds: float = 0.02
    """A contender that is faster is called several times in a round."""


QUICK = Effort(seconds=0.05, rounds=(1, 3), round_seconds=0.001)


def differentiating(contender: Contender, batch: Any, part: str) -> Runner:
    """Times ``contender``'s loss on ``batch``, its gradients, or both.

    The forward part builds the graph, as in training.
    """
    wanted = leaves(batch)

    def gradients(loss: Tensor) -> Any:
        return torch.autograd.grad(loss, wanted, allow_unused=True)

    if part == "forward":
        return Runner(contender.name, lambda: None, lambda _: contender.compute(batch))
    if part == "backward":
        return Runner(contender.name, lambda: contender.compute(batch), gradients)
    return Runner(contender.name, lambda: None, lambda _: gradients(contender.compute(batch)))


def check(contender: Contender, batch: Any) -> None:
    """Asserts the value and the gradients of ``contender`` against its oracle in float64."""
    expected = evaluate(contender.oracle, in_double(batch))
    check_close(contender.name, evaluate(contender.compute, batch), expected)


def evaluate(compute: Callable[[Any], Tensor], batch: Any) -> list[Tensor]:
    """The loss and its gradients, 0 where the loss does not depend on a tensor."""
    wanted = leaves(batch)
    loss = compute(batch)
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *gradients]


def check_close(name: str, actual: Iterable[Tensor], wanted: Iterable[Tensor]) -> None:
    """Asserts that the loss and each gradient are near the oracle's, by their norms."""
    for index, (value, oracle) in enumerate(zip(actual, wanted, strict=True)):
        tolerance = GRADIENT_TOLERANCE if index else VALUE_TOLERANCE
        error = (value.double() - oracle).norm().item()
        assert error <= tolerance * max(oracle.norm().item(), 1e-6), (
            f"{name}: {f'gradient {index}' if index else 'loss'} is off by {error:.3g}, "
            f"norm {oracle.norm().item():.3g}"
        )


@contextmanager
def threads(number: int):
    """Runs its body with ``number`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def race(benchmark: Any, runners: list[Runner], effort: Effort, meter: Meter) -> dict[str, Any]:
    """Times ``runners`` in alternating rounds, and the machine's ceilings in the same rounds.

    The first runner is what ``benchmark`` of pytest-benchmark reports, as the time of one round of
    ``calls[its name]`` calls.

    Returns:
        Median seconds per call by name, the number of calls per round and of rounds, the ceilings.
    """
    costs = {runner.name: _cost(runner) for runner in runners}
    calls = {name: max(1, math.ceil(effort.round_seconds / cost)) for name, cost in costs.items()}
    ceilings = Runner("ceilings", lambda: None, lambda _: meter.sample())
    round_cost = _cost(ceilings) + sum(calls[name] * cost for name, cost in costs.items())
    fewest, most = effort.rounds
    rounds = min(max(int(effort.seconds / round_cost), fewest), most)
    samples: dict[str, list[float]] = {runner.name: [] for runner in runners}
    first, *others = runners

    def prepared(runner: Runner) -> list[Any]:
        return [runner.prepare() for _ in range(calls[runner.name])]

    def execute(runner: Runner, inputs: list[Any]) -> None:
        start = time.perf_counter()
        for value in inputs:
            runner.execute(value)
        samples[runner.name].append((time.perf_counter() - start) / len(inputs))

    def others_first() -> tuple[tuple[Runner, list[Any]], dict]:
        meter.sample()
        for runner in others:
            execute(runner, prepared(runner))
        return (first, prepared(first)), {}

    benchmark.pedantic(execute, setup=others_first, rounds=rounds)
    return {
        "seconds": {name: median(values) for name, values in samples.items()},
        "calls": calls,
        "rounds": rounds,
        "rates": meter.rates()._asdict(),
    }


def _cost(runner: Runner) -> float:
    """Seconds of one call, roughly: the shortest of three, of a long one the first."""
    cost = math.inf
    for _ in range(3):
        start = time.perf_counter()
        runner.execute(runner.prepare())
        cost = min(cost, time.perf_counter() - start)
        if cost > 0.5:
            break
    return cost
