"""Losses of the global batch over real processes, each with other rows, against one process.

The processes of each number of ranks are started once and run all its cases; a test is what they
report of one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_forms  # noqa: F401  (registers its cases, as does the next)
import distributed_pairs  # noqa: F401
import distributed_steps  # noqa: F401
import pytest
import torch
from distributed_ranks import CASES

import mcfa_fast as mf
from mcfa_fast.distributed import Ranks
from mcfa_fast.distributed.schedule import visits

SECONDS = 240


class Processes:
    """The ranks of a group, and what they report."""

    def __init__(self, size, folder):
        self.folder = folder
        self.waited = False
        script = Path(__file__).with_name("distributed_main.py")
        path = os.pathsep.join(filter(None, sys.path))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.processes = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(size), folder / "store", folder],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(size)
        ]

    def reports(self):
        """What became of each case, by rank."""
        try:
            for process in self.processes[:2]:  # others may be stopped or killed by a case
                process.wait(SECONDS)
        finally:
            self.end()
        paths = [self.folder / f"{rank}.json" for rank in range(len(self.processes))]
        return [json.loads(path.read_text()) if path.exists() else {} for path in paths]

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """By number of ranks and rank; all numbers run at the same time."""
    started = {size: Processes(size, tmp_path_factory.mktemp(f"ranks-{size}")) for size in CASES}
    try:
        yield {size: processes.reports() for size, processes in started.items()}
    finally:
        for processes in started.values():
            processes.end()


@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, cases in CASES.items() for name in cases]
)
def test_ranks(reports, size, name):
    every = reports[size]
    if name == "ranks_that_hang_or_end":
        assert all(name not in report for report in every[2:])  # they did
        every = every[:2]
    for rank, report in enumerate(every):
        assert report.get(name) == "passed", f"rank {rank}: {report.get(name, 'no report')}"


@pytest.mark.parametrize(
    "rows", [[5], [4, 4], [9, 2], [0, 3], [3, 5, 7], [4, 4, 4, 4], [9, 0, 1, 6]]
)
def test_every_pair_of_rows_meets_once(rows):
    """Pairs of different ranks, as anchors that are their own keys and as anchors with keys."""
    starts = [sum(rows[:rank]) for rank in range(len(rows))]
    keys = [count + 1 for count in rows]
    met, met_keys = [], []
    for rank in range(len(rows)):
        for seen, of_keys in ((met, None), (met_keys, keys)):
            for host, own, theirs, guest, sent in visits(rank, rows, of_keys):
                seen += [
                    (rank, i, host, j)
                    for i in range(own.start, own.stop)
                    for j in range(theirs.start, theirs.stop)
                ]
                (there,) = [v for v in visits(guest, rows, of_keys) if v.host == rank]
                assert there.theirs == sent
    assert len(starts) == len(rows)
    unordered = [tuple(sorted([(a, i), (b, j)])) for a, i, b, j in met]
    pairs = sum(a * b for k, a in enumerate(rows) for b in rows[k + 1 :])
    assert len(unordered) == len(set(unordered)) == pairs
    everyone = sum(a * k for r, a in enumerate(rows) for s, k in enumerate(keys) if r != s)
    assert len(met_keys) == len(set(met_keys)) == everyone


@pytest.mark.parametrize("rows", [[100, 100], [120, 80], [100] * 5, [50] * 6])
def test_ranks_have_as_much_to_do(rows):
    work = []
    for rank, count in enumerate(rows):
        met = visits(rank, rows, None)
        others = sum((v.own.stop - v.own.start) * (v.theirs.stop - v.theirs.start) for v in met)
        work.append(count * count / 2 + others)
    assert max(work) <= 1.02 * sum(rows) ** 2 / 2 / len(rows)


def test_bad_options():
    for options, words in (
        ({"gradients": "average"}, "`gradients` to be 'sum' or 'mean', but got 'average'"),
        ({"exchange": "tree"}, "`exchange` to be 'gather' or 'ring'"),
        ({"wire_dtype": torch.int8}, "`wire_dtype` to be None or a floating dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            Ranks(**options)


def test_group_has_to_be_one():
    rows, labels = torch.eye(2), torch.tensor([0, 0])
    with pytest.raises(TypeError, match="`group` to be a torch.distributed process group or"):
        mf.functional.vtov_loss(rows, labels, temperature=1.0, group="world")
    with pytest.raises(ValueError, match="init_process_group to have been called"):
        mf.functional.vtov_loss(rows, labels, temperature=1.0, group=Ranks())


def test_build_without_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no torch.distributed"):
        mf.functional.vtov_loss(torch.eye(2), torch.tensor([0, 0]), temperature=1.0, group=Ranks())


def test_module_with_a_group_is_not_scripted():
    with pytest.raises(TypeError, match="a loss with `group` cannot be scripted"):
        torch.jit.script(mf.VtoVLoss(group=Ranks()))
