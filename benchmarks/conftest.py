"""Options and fixtures of the benchmarks."""

from __future__ import annotations

from typing import Any

import pytest
from floor import Meter, Rates, Work
from measure import QUICK, Effort, Runner, race, threads


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="tiny shapes and few rounds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark per case of its file's ``cases(quick)``."""
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.cases(metafunc.config.getoption("quick"))
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("quick")


@pytest.fixture
def on_threads(case: Any):
    """Runs the benchmark with the case's number of threads."""
    with threads(case.threads):
        yield


@pytest.fixture
def record(benchmark: Any, quick: bool, on_threads: None):
    """Races runners and attaches the result, with the floor, to the benchmark's extra info."""

    def run(runners: list[Runner], work: Work, *, per_call: int = 1, **what: Any) -> None:
        """``work`` is that of one of the ``per_call`` times that a call does the job."""
        meter = Meter(256, 2**12, 2**18) if quick else Meter()
        result = race(benchmark, runners, QUICK if quick else Effort(), meter)
        result["seconds"] = {name: each / per_call for name, each in result["seconds"].items()}
        result["floor"] = work.seconds(Rates(**result["rates"]))
        benchmark.extra_info.update(what, **result)

    return run
