"""Sweeps of the tests: on one split of digits, in this process or with scripted trainings."""

from __future__ import annotations

import sys
from dataclasses import replace

from mcfa_fast.experiments import Choice, Range, sweep
from mcfa_fast.experiments.jobs import Finished

MODULE = sys.modules[sweep.__module__]  # its name is that of the function

GRID = {"epochs": Range(1, 3), "positives": Choice(("in", "out"))}
RANGES = {"learning_rate": Range(1e-4, 1e-2, log=True), "epochs": Range(1, 4)}
PENALTIES = {
    "visual_penalty": Choice((1.0, 100.0, 10000.0)),
    "semantic_penalty": Choice((0.01, 1.0)),
}


def run(out, search=GRID, *, splits=("7/3:0",), system="mcfa", **options):
    """A sweep of MCFA, whose preset is in none of the spaces; the grid is tried as one."""
    if search is GRID:
        options = {"sampler": "grid", **options}
    return sweep(out, search, splits=splits, system=system, **options)


def outcome(rows):
    """Trials without their durations."""
    return [replace(row, seconds=None) for row in rows]


def train_here(monkeypatch):
    """Train in this process, which takes no time to start."""

    def serially(jobs, work, *, workers):
        for job in jobs:
            yield Finished(job, work(job), None, 0.25)

    monkeypatch.setattr(MODULE, "in_workers", serially)


def train_by_script(monkeypatch, function):
    """Trainings give what a function of the job says, or its error; returns the jobs."""
    jobs = []

    def serially(source, work, *, workers):
        for job in source:
            jobs.append(job)
            value = function(job)
            failed = isinstance(value, str)
            yield Finished(job, None if failed else value, value if failed else None, 0.25)

    monkeypatch.setattr(MODULE, "in_workers", serially)
    return jobs
