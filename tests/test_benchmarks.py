"""The benchmark suite: its arithmetic, and one quick run of everything."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports a module of the suite by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for path in BENCHMARKS.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


def test_floor_of_a_large_batch_is_the_known_time(benchmarks):
    floor = benchmarks("floor")
    rates = floor.Rates(flops=174e9, exponentials=4.5e9, bytes=1e11)
    shape = benchmarks("shapes").Shape(8192, 64, 70)
    seconds = {part: floor.vtov(shape, part).seconds(rates) for part in ("forward", "backward")}
    assert floor.vtov(shape).seconds(rates) == pytest.approx(0.1136, rel=1e-3)
    assert sum(seconds.values()) == pytest.approx(0.1136, rel=1e-3)
    assert floor.contrastive("fused", shape).seconds(rates) == pytest.approx(0.1155, rel=1e-2)


def test_fitted_exponent_is_the_slope_of_the_larger_half(benchmarks):
    scaling = benchmarks("scaling")
    instances = [2**k for k in range(8, 14)]
    values = [5.0, 5.0, 5.0, *(n**2 / 7 for n in instances[3:])]
    assert scaling.exponent(instances, values) == pytest.approx(2)
    assert scaling.exponent([256], [1.0]) is None


def test_targets_are_judged_on_their_own_record(benchmarks):
    targets, peers, shapes = (benchmarks(name) for name in ("targets", "peers", "shapes"))
    record = {
        "job": "contrastive",
        "loss": "fused",
        "positives": "out",
        **shapes.LARGE._asdict(),
        "part": "both",
        "threads": 2,
        "seconds": {peers.LIBRARY: 0.1, peers.PLAIN: 2.0},
        "floor": 0.07,
    }
    other = {**record, "threads": 1, "seconds": {peers.LIBRARY: 9.0, peers.PLAIN: 1.0}}
    fraction, speedup, *rest = targets.TARGETS
    assert fraction.record([other, record]) is record
    assert fraction.figure(record) == pytest.approx(0.7)
    assert not fraction.is_met(0.7)
    assert speedup.record([other, record]) is record
    assert speedup.figure(record) == pytest.approx(20)
    assert speedup.is_met(20)
    assert all(target.record([other, record]) is None for target in rest)


def test_quick_run_checks_every_contender_and_writes_results(tmp_path):
    command = [sys.executable, BENCHMARKS / "run.py", "--quick", "--results", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Reached against target" in run.stdout
    (path,) = tmp_path.glob("*-quick.json")
    summary = json.loads(path.read_text())
    jobs = {record["job"] for record in summary["records"]}
    losses = {"alignment", "contrastive", "distributed", "pairs", "reconstruction", "sampling"}
    assert jobs == losses | {"classification", "inference", "scaling", "training", "transduction"}
    for record in summary["records"]:
        assert record["floor"] > 0
        assert all(seconds > 0 for seconds in record["seconds"].values())


def test_service_benchmark_measures_and_writes_a_table(tmp_path):
    command = [sys.executable, BENCHMARKS / "serving.py", "--seconds", "0.2"]
    run = subprocess.run([*command, "--results", tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / "serve.md").read_text()
    assert text.count("\n| json") == text.count("\n| npy") == 3
    assert "The server held" in text


def test_recall_is_the_share_of_the_wanted_that_was_found(benchmarks):
    index = benchmarks("latent_index")
    found = torch.tensor([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])
    wanted = torch.tensor([[5, 4, 3, 2, 0], [9, 8, 7, 6, 5]])
    assert index.recall(found, wanted) == pytest.approx((0.8 + 1.0) / 2)
    records = [
        {"data": "random", "kind": "ivf", "recall": share, "times_faster": speed}
        for share, speed in ((0.98, 50.0), (0.99, 20.0), (1.0, 10.0))
    ]
    assert index.best(records, "random", "ivf")["times_faster"] == 20.0
    assert index.best(records, "clustered", "ivf") is None


def test_quick_run_of_the_index_writes_its_page(tmp_path):
    command = [sys.executable, BENCHMARKS / "latent_index.py", "--quick", "--results", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    records = json.loads((tmp_path / "latent_index.json").read_text())["records"]
    assert {record["kind"] for record in records} == {"flat", "ivf", "hnsw"}
    assert all(r["recall"] == 1.0 for r in records if r["kind"] == "flat")
    assert "recall" in (tmp_path / "latent_index.md").read_text()


def test_import_time_is_within_its_target(benchmarks):
    import_time = benchmarks("import_time")
    steps = import_time.STEPS[:3]
    measured = import_time.milliseconds(steps, rounds=2)
    assert list(measured) == list(steps) and measured["import torch"] > 0
    assert measured["import mcfa_fast"] < import_time.TARGET_MS
