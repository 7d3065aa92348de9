"""Classes without any image, on the command line: digits whose images are left out."""

import csv
import json

import numpy as np
import pytest
from cli_run import MCFA, SOLVED, invoke

import mcfa_fast as mf

DIGITS = mf.data.load("digits")
ABSENT = [4, 8]

pytestmark = pytest.mark.usefixtures("one_thread")


def write_digits(folder, absent, splits=None):
    folder.mkdir()
    rows = ~np.isin(DIGITS.labels, absent)
    np.save(folder / "features.npy", DIGITS.features[rows])
    np.save(folder / "labels.npy", DIGITS.labels[rows])
    np.savez(folder / "semantics.npz", text=DIGITS.semantics)
    (folder / "class_names.json").write_text(json.dumps(DIGITS.class_names))
    if splits is not None:
        (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture(scope="module")
def without_images(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("data") / "digits", ABSENT)


@pytest.mark.parametrize(
    ("system", "rule"), [(MCFA, "none"), (SOLVED, "calibration"), (SOLVED, "grid")]
)
@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_training_for_them(without_images, tmp_path, task, system, rule):
    run = tmp_path / "run"
    options = ["--task", task, *system, "--set", f"selection={rule}", "--run-dir", run]
    result = invoke("train", "--data", without_images, *options)
    assert result.exit_code == 0, result.output
    assert "No images of class '4' (4), '8' (8): nothing tells" in result.output
    assert ("test images of seen classes, among all 10" in result.output) == (task == "gzsl")
    assert json.loads((run / "results.json").read_text())["results"] == {}
    classifier = mf.ZeroShotClassifier.load(run / "classifier.pt")
    assert classifier.unseen_classes_.tolist() == ABSENT
    assert classifier.classes_.tolist() == (ABSENT if task == "zsl" else list(range(10)))
    assert (classifier.selection_ is None) == (rule == "none")

    np.save(tmp_path / "new.npy", DIGITS.features[np.isin(DIGITS.labels, ABSENT)])
    output = tmp_path / "labels.csv"
    result = invoke("predict", run, tmp_path / "new.npy", "-o", output, "--top", 10)
    assert result.exit_code == 0, result.output
    with output.open() as file:
        named = {row["class"] for row in csv.DictReader(file)}
    assert named == ({"4", "8"} if task == "zsl" else set(DIGITS.class_names))


def test_evaluate_says_what_it_cannot_compute(without_images, tmp_path):
    for task in ("zsl", "gzsl"):
        options = ["--task", task, *MCFA, "--run-dir", tmp_path / task]
        assert invoke("train", "--data", without_images, *options).exit_code == 0
    result = invoke("evaluate", tmp_path / "zsl")
    assert result.exit_code == 1
    assert "'8/2:0': none of its 2 unseen classes has test rows" in result.stderr
    calibrated = ["--head", "nearest", "--calibration", "-1e6"]
    result = invoke("evaluate", tmp_path / "gzsl", "--per-class", *calibrated)
    assert result.exit_code == 0 and "nan" not in result.output
    split = mf.data.load(without_images).split("8/2:0", generalized=True)
    classifier = mf.ZeroShotClassifier.load(tmp_path / "gzsl" / "classifier.pt")
    # With such a calibration, no image is taken for one of an unseen class.
    classifier = classifier.with_head("nearest").set_params(calibration=-1e6)
    dataset = mf.data.load(without_images)
    accuracy = classifier.score(dataset.features[split.test_seen], dataset.labels[split.test_seen])
    assert 0.3 < accuracy and f"nearest {100 * accuracy:.1f}," in result.output
    result = invoke("report", tmp_path / "zsl", "-o", tmp_path / "report.html")
    assert result.exit_code == 1 and "no results to report on" in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_classes_with_images_are_evaluated_beside_them(tmp_path):
    sides = {"k": 0, "seen_idx": [0, 1, 2, 5, 6, 7, 9], "unseen_idx": [3, 4, 8]}
    data = write_digits(tmp_path / "digits", [4], {"class_splits": {"7/3": [sides]}})
    for task in ("zsl", "gzsl"):
        run = tmp_path / task
        result = invoke("train", "--data", data, "--task", task, *MCFA, "--run-dir", run)
        assert result.exit_code == 0, result.output
        assert "No images of class '4' (4): the accuracies are means over" in result.output
        result = invoke("evaluate", run, "--per-class")
        assert result.exit_code == 0, result.output
        cells = [line.split("│") for line in result.output.splitlines() if line.startswith("│ 4 ")]
        assert [cell.strip() for cell in cells[0][2:6]] == ["0", "–", "–", "–"]
        classifier = mf.ZeroShotClassifier.load(run / "classifier.pt")
        assert classifier.unseen_classes_.tolist() == [3, 4, 8]
        result = invoke("report", run, "-o", tmp_path / "report.html")
        assert result.exit_code == 0, result.output


def test_splits_drawn_among_classes_with_images_are_evaluated(without_images, tmp_path):
    options = ["--split", "6/2:seed=0", *SOLVED, "--run-dir", tmp_path]
    result = invoke("train", "--data", without_images, *options)
    assert result.exit_code == 0 and "No images" not in result.output
    assert not set(mf.ZeroShotClassifier.load(tmp_path / "classifier.pt").classes_) & set(ABSENT)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", ["--system", "mcfa", "--preset", "reference", "--run-dir", "run"]),
        ("benchmark", ["--out", "out"]),
    ],
)
def test_what_needs_test_images_of_unseen_classes_says_so(
    without_images, tmp_path, monkeypatch, command, options
):
    monkeypatch.chdir(tmp_path)
    result = invoke(command, "--data", without_images, *options)
    assert result.exit_code == 1
    assert "'8/2:0': none of its 2 unseen classes has test rows" in result.stderr
    assert list(tmp_path.iterdir()) == []
