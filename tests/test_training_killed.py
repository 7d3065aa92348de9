"""Training runs that are really killed (SIGKILL) resume to bitwise the same result.

The test starts this file as a script. The script imports everything once and then forks: each
child trains in a run folder and is killed, at a random time by its parent or by itself at a chosen
point of writing its files, until a child is left to finish.
"""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import _dynamo  # noqa: F401  (as are the next, imported before the fork: slow)
from torch.utils import tensorboard  # noqa: F401

from mcfa_fast.systems.mcfa import MCFAConfig
from mcfa_fast.systems.trainer import Trainer

EPOCHS = 3


def train(folder):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(20)
    features = torch.rand(60, 10, generator=generator)
    semantics = torch.randn(4, 6, generator=generator)
    config = MCFAConfig.paper(
        "zsl",
        epochs=EPOCHS,
        classes_per_batch=2,
        latent_features=4,
        visual_hidden=8,
        semantic_hidden=8,
    )
    Trainer(config, features, labels, semantics, run_dir=folder).fit()


# The script


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(module, name, number, moment):
    """Makes this process kill itself before, after or halfway the given call of a function."""
    original, calls = getattr(module, name), 0

    def patched(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls != number:
            return original(*arguments, **options)
        if moment == "before":
            die()
        if moment == "halfway":  # only for torch.save(state, file)
            whole = io.BytesIO()
            original(arguments[0], whole)
            arguments[1].write(whole.getvalue()[: len(whole.getvalue()) // 2])
            arguments[1].flush()
            die()
        original(*arguments, **options)
        die()

    setattr(module, name, patched)


def run_child(folder, prepare=None, kill_after=None):
    """Trains in a forked child; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if prepare:
                prepare()
            train(folder)
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"training failed in {folder}"
    return False


def outcome(folder):
    """What a finished run left: weights, optimizer, generators and metrics without times."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)["state"]
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in (*rows, *content["history"]):
        del row["seconds"]
    return {**content, "csv": rows}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def drive(root):
    torch.set_num_threads(1)
    run_child(root / "warm-up")
    started = time.perf_counter()
    assert not run_child(root / "expected")
    duration = time.perf_counter() - started
    expected = outcome(root / "expected")
    assert len(expected["csv"]) == EPOCHS
    report = {"random": 0, "chosen": 0, "wrong": []}

    def check(folder):
        if not same(outcome(folder), expected):
            report["wrong"].append(folder.name)

    moments = random.Random(0)
    for trial in range(8):
        folder = root / f"random-{trial}"
        for latest in (0.5, 0.8, 1):
            report["random"] += run_child(folder, kill_after=moments.uniform(0, latest) * duration)
        run_child(folder)
        check(folder)

    points = [(torch, "save", n, "halfway") for n in range(1, EPOCHS + 1)]
    # What is trained, the empty metrics, and two files per epoch; each has two fsyncs.
    files = 2 + 2 * EPOCHS
    points += [(os, "replace", n, m) for n in range(1, files + 1) for m in ("before", "after")]
    points += [(os, "fsync", n, "before") for n in range(1, 2 * files + 1, 3)]
    for module, name, number, moment in points:
        folder = root / f"{name}-{number}-{moment}"
        killed = run_child(folder, lambda p=(module, name, number, moment): kill_at_call(*p))
        assert killed, f"no call {number} of {name}"
        report["chosen"] += 1
        run_child(folder)
        check(folder)
    print(json.dumps(report))


if __name__ == "__main__":
    drive(Path(sys.argv[1]))


# The test


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_runs_resume_to_the_same_result(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    finished = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    report = json.loads(finished.stdout.splitlines()[-1])
    assert report["wrong"] == []
    assert report["random"] >= 4  # how many depends on the machine's speed from child to child
    assert report["chosen"] >= 25
