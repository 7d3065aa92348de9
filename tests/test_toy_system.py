"""A system that the library does not know goes through all of it, from training to serving.

`toy_system.py` defines and registers it; that its name names its module is all that the command
line needs.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_run import invoke
from contract_data import FEATURES, NAMES, NEW, make_dataset, make_images, make_semantics
from http_service import running
from system_data import assert_same_state

import mcfa_fast as mf
from mcfa_fast.data.save import save_folder
from mcfa_fast.serving import Service, create_app
from mcfa_fast.systems import registry

TOY = "toy_system:toy"
SPLIT = "20/2:seed=0"
OPTIONS = ("--set", "epochs=60", "--set", "batch_size=32", "--set", "learning_rate=0.01")
TRAIN = ("--system", TOY, "--task", "gzsl", "--split", SPLIT, *OPTIONS)
IMAGES = make_images(np.arange(NEW), rows=4, seed=9)[0]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_folder(make_dataset()[0], tmp_path_factory.mktemp("data") / "contract")


def command(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    command("train", "--data", data, *TRAIN, "--run-dir", folder)
    return folder


@pytest.fixture
def classifier(finished):
    return mf.ZeroShotClassifier.load(finished / "classifier.pt")


def test_its_file_has_less_than_60_lines():
    import toy_system

    with open(toy_system.__file__) as file:
        assert len(file.readlines()) < 60


def test_it_learns_and_selects(classifier, finished):
    assert (classifier.run_.system, classifier.head_.name) == (TOY, "scores")
    assert set(classifier.selection_.calibration) == {"scores"}
    results = json.loads((finished / "results.json").read_text())["results"]["scores"]
    assert results["generalized"]["harmonic"] > 0.9
    history = list(csv.DictReader((finished / "metrics.csv").open()))
    assert float(history[-1]["total"]) < 0.5 * float(history[0]["total"])


def test_a_killed_training_resumes_to_bitwise_the_same(classifier, data, tmp_path):
    """By SIGKILL, from a process that knows of the system by its name alone."""
    arguments = ["train", "--data", str(data), *TRAIN, "--run-dir", str(tmp_path / "run")]
    search = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-m", "mcfa_fast", *arguments],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    metrics, checkpoint = tmp_path / "run" / "metrics.csv", tmp_path / "run" / "checkpoint.pt"
    started = time.monotonic()
    while not checkpoint.exists() and process.poll() is None:
        assert time.monotonic() < started + 300, "no epoch was finished"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert not (tmp_path / "run" / "classifier.pt").exists(), "it was killed in training"
    before = len(metrics.read_text().splitlines())
    assert 1 < before < 61
    command(*arguments)
    resumed = mf.ZeroShotClassifier.load(tmp_path / "run" / "classifier.pt")
    assert_same_state(resumed.system_, classifier.system_)
    assert resumed.selection_ == classifier.selection_
    assert np.array_equal(resumed.decision_function(IMAGES), classifier.decision_function(IMAGES))


def test_evaluate_and_predict(classifier, finished, tmp_path):
    shown = command("evaluate", finished)
    results = json.loads((finished / "results.json").read_text())["results"]["scores"]
    assert f"{100 * results['generalized']['harmonic']:.1f}" in shown
    np.save(tmp_path / "images.npy", IMAGES)
    command("predict", finished, tmp_path / "images.npy", "--output", tmp_path / "found.csv")
    found = [row["class"] for row in csv.DictReader((tmp_path / "found.csv").open())]
    assert found == [NAMES[index] for index in classifier.predict(IMAGES)]


def test_benchmark(data, tmp_path):
    arguments = ["--data", data, "--systems", f"{TOY},eszsl", "--against", "eszsl"]
    command(
        "benchmark", *arguments, "--splits", SPLIT, "--seeds", "0", "--jobs", 1, "--out", tmp_path
    )
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["task"], row["label"]) for row in rows] == [
        (task, label) for task in ("zsl", "gzsl") for label in ("eszsl", TOY)
    ]


def test_sweep(data, tmp_path):
    arguments = ["--data", data, "--system", TOY, "--splits", SPLIT]
    options = ["--choose", "learning_rate=1e-3,1e-2", "--set", "epochs=5", "--seeds", "0"]
    command("sweep", *arguments, *options, "--jobs", 1, "--out", tmp_path / "sweep")
    trials = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").open()))
    assert [float(row["learning_rate"]) for row in trials] == [1.5e-4, 1e-3, 1e-2]
    best = mf.RunConfig.model_validate_json((tmp_path / "sweep" / "best.json").read_text())
    assert best.system == TOY


def test_report(finished, tmp_path):
    command("report", finished, "--output", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert TOY in page and "scores" in page


@pytest.mark.parametrize("name", ["toy.pt", "toy.pt2"])
def test_export(classifier, finished, name, tmp_path):
    command("export", finished, "--output", tmp_path / name)
    exported = mf.load_exported(tmp_path / name)
    scores = classifier.decision_function(IMAGES)
    np.testing.assert_allclose(np.asarray(exported.scores(IMAGES)), scores, atol=1e-4)
    names = [NAMES[index] for index in classifier.predict(IMAGES)]
    assert list(exported.predict(IMAGES)) == names


def test_serve_with_a_class_added(classifier):
    with running(create_app(Service(classifier), allow_add=True)) as client:
        health = client.get("/health").content
        assert (health["system"], health["head"], health["features"]) == (TOY, "scores", FEATURES)
        vector = make_semantics()[NEW].tolist()
        assert client.post("/classes", {"name": "new", "vector": vector}).status in (200, 201)
        images, _ = make_images(np.array([NEW]), rows=5, seed=3)
        answer = client.post("/classify?top=1", {"features": images.tolist()})
    assert answer.status == 200
    assert re.findall(r'"new"', json.dumps(answer.content)), answer


# How it is found


def test_files_do_not_import_but_the_environment_may(finished, tmp_path):
    """Reading a file runs no code that the reader has not asked for."""
    script = (
        "import sys, mcfa_fast as mf\n"
        "try: found = mf.ZeroShotClassifier.load(sys.argv[1]).run_.system\n"
        "except ValueError as error: found = str(error)\n"
        "print('toy_system' in sys.modules, found)"
    )
    search = os.pathsep.join(filter(None, sys.path))
    for variable, expected in (
        ("", "False .*import toy_system first, or name it in the environment's MCFA_FAST_SYSTEMS"),
        ("toy_system", "True toy_system:toy"),
    ):
        found = subprocess.run(
            [sys.executable, "-c", script, str(finished / "classifier.pt")],
            env={**os.environ, "PYTHONPATH": search, "MCFA_FAST_SYSTEMS": variable},
            capture_output=True,
            text=True,
            check=True,
        )
        assert re.match(expected, found.stdout, re.S), found.stdout


@pytest.mark.parametrize(
    "name", ["toy_system:other", "no_such_module:toy", "mcfa:toy", ":", "a..b:c"]
)
def test_names_that_lead_nowhere(name):
    with pytest.raises(ValueError, match=f"system: expected one of .*, got {name!r}"):
        mf.RunConfig.of(name)


def test_a_name_is_taken_once():
    other = type("Other", (registry.find("mcfa").system,), {})
    with pytest.raises(ValueError, match="name: there is a system 'mcfa' already"):
        registry.register(registry.Entry(other, ("nearest",), "others"))


def test_entry_points_are_found_by_their_name(monkeypatch):
    class Point:
        def load(self):
            __import__("toy_system")

    asked = []

    def entry_points(**selection):
        asked.append(selection)
        return [Point()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry.SYSTEMS.pop(TOY, None)
    sys.modules.pop("toy_system", None)
    assert registry.find(TOY, imports=False).name == TOY
    assert asked == [{"group": "mcfa_fast.systems", "name": TOY}]
