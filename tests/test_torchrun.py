"""Training, prediction and their failures over several real processes."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_run import invoke
from torchrun_driver import CASES, RUN, TOGETHER, difference

from mcfa_fast.data import load

HERE = Path(__file__).parent
# In single precision, relative to the largest value: the same sums in another order. Measured after
# 3 epochs: weights 9e-7, losses 3e-6, scores 4e-7.
SINGLE = 1e-5
DOUBLE = 1e-13  # measured: 1e-15
# They compute losses from scores in single precision.
SINGLE_LOSSES = ("devise", "ale", "sje", "latem")
TRAIN = ["-m", "mcfa_fast", "train", "--system", "mcfa", "--task", "gzsl", "--split", "7/3:0"]
for key, value in RUN.items():
    TRAIN += ["--set", f"{key}={value}"]
ENDLESS = [*TRAIN, "--set", "selection=none", "--set", "epochs=100000"]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks up and kills processes"),
]


def started(command, **variables):
    path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*command):
    return started(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command])


def by_hand(ranks, *command, **variables):
    """The processes as another launcher starts them, which leaves those alone that remain."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [started(command, RANK=str(rank), **variables) for rank in range(ranks)]


@contextmanager
def killed_in_the_end(*processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(process, seconds=120):
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for_epoch(folder, epoch, process):
    metrics = folder / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) <= epoch:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["state"]["trainable"]


# The same numbers as one process


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    out = tmp_path_factory.mktemp("driven")
    code, _, err = ended(torchrun(HERE / "torchrun_driver.py", out), 300)
    assert code == 0, err[-3000:]
    return out


@pytest.fixture(scope="module")
def report(driven):
    return json.loads((driven / "report.json").read_text())


@pytest.mark.parametrize("system", TOGETHER)
def test_ranks_give_what_one_process_gives(report, system):
    found = report[system]
    assert found["epochs"] == 3 and found["ranks agree"]
    assert max(found[name] for name in ("weights", "losses", "scores")) < SINGLE, found
    assert found["predictions"] == 1


@pytest.mark.parametrize("case", CASES)
def test_gradients_add_up_to_those_of_one_process(report, case):
    found = report["gradients"][case]
    assert found["gradients"] < DOUBLE, found
    assert found["losses"] < (1e-6 if case in SINGLE_LOSSES else DOUBLE), found


# Killed and resumed


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run one of whose two processes was killed after an epoch."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    launcher = torchrun(*TRAIN, "--run-dir", folder)
    wait_for_epoch(folder, 1, launcher)
    workers = children(launcher.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    code, _, _ = ended(launcher)
    assert code != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not (folder / "results.json").exists()
    return folder


@pytest.fixture(scope="module")
def resumed(killed, tmp_path_factory):
    folder = shutil.copytree(killed, tmp_path_factory.mktemp("resumed") / "run")
    code, out, err = ended(torchrun(*TRAIN, "--run-dir", folder))
    assert code == 0, err[-3000:]
    assert out.count("The run took") == 1
    return folder


def test_the_same_number_of_ranks_resumes_bitwise(driven, resumed):
    ours, theirs = (
        torch.load(folder / "checkpoint.pt", weights_only=True)["state"]
        for folder in (resumed, driven / "whole")
    )
    assert same(ours["trainable"], theirs["trainable"])
    for name in ("training.json", "selection.json"):
        assert (resumed / name).read_bytes() == (driven / "whole" / name).read_bytes()
    rows, expected = (
        list(csv.DictReader((folder / "metrics.csv").open()))
        for folder in (resumed, driven / "whole")
    )
    for row in (*rows, *expected):
        del row["seconds"]
    assert rows == expected and len(rows) == RUN["epochs"]
    results = [json.loads((f / "results.json").read_text()) for f in (resumed, driven / "whole")]
    assert results[0] == results[1]


def test_one_process_resumes_what_two_began(driven, killed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "run")
    result = invoke(*TRAIN[2:], "--run-dir", folder)
    assert result.exit_code == 0, result.output
    ours, theirs = (state_of(f)["module"] for f in (folder, driven / "whole"))
    assert max(difference(ours[name], theirs[name]) for name in theirs) < SINGLE


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# One clear error


def test_a_killed_rank_is_one_error_of_the_others(tmp_path):
    processes = by_hand(3, *ENDLESS, "--run-dir", tmp_path / "run")
    with killed_in_the_end(*processes):
        wait_for_epoch(tmp_path / "run", 2, processes[0])
        processes[2].kill()
        began = time.monotonic()
        codes, _, errors = zip(*map(ended, processes), strict=True)
    assert time.monotonic() - began < 60
    assert codes == (1, 1, -signal.SIGKILL)
    (line,) = "".join(errors).strip().splitlines()
    assert re.match(r"error: .*rank [01] of 3.*one of them has ended, or has not answered", line)


def test_a_hanging_rank_is_an_error_after_the_time_out(tmp_path):
    processes = by_hand(2, *ENDLESS, "--run-dir", tmp_path / "run", MCFA_FAST_TIMEOUT="8")
    with killed_in_the_end(*processes):
        wait_for_epoch(tmp_path / "run", 2, processes[0])
        processes[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        code, _, error = ended(processes[0])
    assert code == 1 and 7 < time.monotonic() - began < 60
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ") and "has not answered" in line


# Prediction


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Three chunks of rows, for two processes."""
    path = tmp_path_factory.mktemp("features") / "features.npy"
    np.save(path, np.tile(load("digits").features, (20, 1)).astype(np.float64))
    return path


def test_predictions_are_those_of_one_process(driven, features, tmp_path):
    arguments = ["predict", driven / "whole", features, "--top", "2", "-o"]
    code, out, err = ended(torchrun("-m", "mcfa_fast", *arguments, tmp_path / "together.csv"))
    assert code == 0, err[-3000:]
    assert out.count("rows classified") == 1
    result = invoke(*arguments, tmp_path / "alone.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "together.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_an_error_of_one_rank_is_told_once(driven, features, tmp_path):
    rows = np.load(features)
    rows[20_000, 3] = np.nan  # of the second process
    np.save(tmp_path / "bad.npy", rows)
    command = ["-m", "mcfa_fast", "predict", driven / "whole", tmp_path / "bad.npy"]
    processes = by_hand(2, *command, "-o", tmp_path / "out.csv")
    codes, outs, errors = zip(*map(ended, processes), strict=True)
    assert codes == (1, 1) and outs == ("", "")
    (line,) = "".join(errors).strip().splitlines()
    assert "NaN or infinity in row 20000" in line
    assert not (tmp_path / "out.csv").exists()


# Commands that are not for several processes


@pytest.mark.parametrize(("rank", "code"), [(0, 0), (1, 0)])
def test_the_first_rank_does_what_is_for_one(monkeypatch, rank, code):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    result = invoke("info")
    assert result.exit_code == code
    assert bool(result.stdout) == (rank == 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_starts_processes_of_its_own_is_refused(monkeypatch, rank):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    result = invoke("sweep", "--choose", "epochs=1,2")
    assert result.exit_code == 2
    assert ("start it without torchrun" in result.stderr) == (rank == 0)


@pytest.mark.parametrize("text", ["0", "soon"])
def test_a_bad_time_out_is_named(monkeypatch, text):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MCFA_FAST_TIMEOUT": text}.items():
        monkeypatch.setenv(name, value)
    result = invoke("train", "--system", "eszsl")
    assert result.exit_code == 1
    assert f"MCFA_FAST_TIMEOUT: expected a number of seconds above 0, got '{text}'" in result.stderr
