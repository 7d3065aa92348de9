"""Features in a file: how often they are read before training, and files larger than memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mcfa_fast import data
from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.systems import fit as fitting
from mcfa_fast.training import placement

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, WIDTH = 600, 40
LABELS = np.arange(ROWS) % 6
SEMANTICS = np.random.default_rng(1).random((8, 5)).astype(np.float32)


class Started(Exception):
    """Training is about to take its first step."""


@pytest.fixture
def stops_at_the_first_step(monkeypatch):
    def train(*arguments, **options):
        raise Started

    monkeypatch.setattr(fitting, "train", train)


@pytest.fixture
def bytes_read(monkeypatch):
    counts = []
    original = os.preadv

    def preadv(*arguments):
        counts.append(original(*arguments))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", preadv)
    return counts


@pytest.fixture
def features(tmp_path):
    values = np.random.default_rng(0).random((ROWS, WIDTH)).astype(np.float32)
    np.save(tmp_path / "features.npy", values)
    return NpyFile(tmp_path / "features.npy")


@pytest.mark.parametrize("run_dir", [False, True])
@pytest.mark.parametrize("selection", ["none", "calibration"])
@pytest.mark.parametrize(("resident", "times"), [(True, 2), (False, 1)])
@pytest.mark.parametrize("system", ["mcfa", "dual-encoder"])
def test_a_file_is_read_at_most_twice_before_the_first_step(
    features,
    tmp_path,
    monkeypatch,
    bytes_read,
    stops_at_the_first_step,
    system,
    resident,
    times,
    selection,
    run_dir,
):
    monkeypatch.setattr(placement, "_free_memory", lambda device: 2**40 if resident else 0)
    classifier = ZeroShotClassifier(
        system,
        options={"selection": selection, "classes_per_batch": 2},
        run_dir=tmp_path / "run" if run_dir else None,
    )
    with pytest.raises(Started):
        classifier.fit(FeatureRows(features), LABELS, SEMANTICS)
    rows = ROWS if selection == "none" else ROWS // 2  # of a fold; each trains on a part
    assert rows * WIDTH * 4 * times <= sum(bytes_read) <= features.nbytes * times


def test_arrays_in_memory_are_checked_once(features, monkeypatch):
    checked = []
    original = FeatureRows._check

    def check(self, chunk, start):
        checked.append(len(chunk))
        original(self, chunk, start)

    monkeypatch.setattr(FeatureRows, "_check", check)
    rows = FeatureRows(features[:])
    for _ in range(2):
        list(rows.chunks(250))
    assert checked == [250, 250, 100]
    checked.clear()
    names = tuple(str(index) for index in range(8))
    dataset = data.Dataset("mine", features[:], LABELS, names, SEMANTICS)
    list(dataset.rows(np.arange(0, ROWS, 2)).chunks())
    assert not checked, "the dataset has checked them"


LARGE_ROWS, LARGE_WIDTH, LARGE_CLASSES = 3 * 2**14, 2**12, 8
ROOM = 512 * 2**20  # bytes of address space beside what the libraries take

TRAIN = f"""
import resource, sys
import numpy as np
from mcfa_fast.cli import app

with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {ROOM}, used + {ROOM}))

def refused(attempt):
    try:
        attempt()
    except (MemoryError, OSError, ValueError):
        return True
    return False

path = sys.argv[1] + "/features.npy"
assert refused(lambda: np.load(path)), "the file can be read as a whole"
assert refused(lambda: np.load(path, mmap_mode="r")), "the file can be mapped"
options = dict(epochs=1, selection="none", embedding_features=8, instances_per_class=512,
               classes_per_batch=5)
settings = [text for name, value in options.items() for text in ("--set", f"{{name}}={{value}}")]
app(["train", "--data", sys.argv[1], "--system", "dual-encoder", *settings,
     "--run-dir", sys.argv[2]])
"""


def write_large_folder(path):
    """768 MiB of features, more than the process can have."""
    path.mkdir()
    labels = np.arange(LARGE_ROWS) % LARGE_CLASSES
    with open(path / "features.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (LARGE_ROWS, LARGE_WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        block = np.random.default_rng(0).random((512, LARGE_WIDTH), dtype=np.float32)
        for _ in range(LARGE_ROWS // 512):
            file.write(block.data)
    np.save(path / "labels.npy", labels)
    np.savez(path / "semantics.npz", text=np.eye(LARGE_CLASSES, dtype=np.float32))
    (path / "class_names.json").write_text(json.dumps([f"c{k}" for k in range(LARGE_CLASSES)]))
    split = {"k": 0, "seen_idx": [0, 1, 2, 3, 4], "unseen_idx": [5, 6, 7]}
    (path / "splits.json").write_text(json.dumps({"class_splits": {"5/3": [split]}}))
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_a_file_larger_than_memory_trains_from_the_command_line(tmp_path):
    folder = write_large_folder(tmp_path / "large")
    assert (folder / "features.npy").stat().st_size > ROOM
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    try:
        result = subprocess.run(
            [sys.executable, "-c", TRAIN, folder, tmp_path / "run"],
            capture_output=True,
            text=True,
            env=environment,
        )
    finally:
        (folder / "features.npy").unlink()
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["results"]) == ["nearest"]
    assert (tmp_path / "run" / "classifier.pt").exists()
