"""``--transductive`` of predict, evaluate and benchmark, on digits."""

import csv

import numpy as np
import pytest
from cli_run import invoke

import mcfa_fast as mf

pytestmark = pytest.mark.usefixtures("one_thread")


def test_predict_classifies_the_file_as_one_set(run_dir, tmp_path):
    digits = mf.data.load("digits")
    np.save(tmp_path / "mine.npy", digits.features[:40])
    files = {"npy": tmp_path / "out.npy", "csv": tmp_path / "out.csv"}
    for format, output in files.items():
        arguments = ["-o", output, "--format", format, "--head", "nearest", "--top", "2"]
        result = invoke("predict", run_dir, tmp_path / "mine.npy", *arguments, "--transductive")
        assert result.exit_code == 0, result.output
        assert "transductive, with the default strengths" in result.output
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt").with_head("nearest")
    train = digits.split("7/3:0", generalized=True).train
    together = classifier.transductive(digits.features[train], digits.labels[train])
    wanted = together.predict_proba(digits.features[:40])
    found = np.load(files["npy"])
    assert np.array_equal(found["class"][:, 0], classifier.classes_[wanted.argmax(axis=1)])
    np.testing.assert_allclose(found["score"][:, 0], wanted.max(axis=1), rtol=1e-5)
    with open(files["csv"], newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"] == "1"]
    assert [row["class"] for row in rows] == [
        classifier.class_names_[c] for c in found["class"][:, 0]
    ]
    result = invoke("predict", run_dir, tmp_path / "mine.npy", "-o", files["csv"], "--data", "x")
    assert result.exit_code == 1 and "--data: expected with --transductive only" in result.stderr


def test_evaluate_prints_a_table_of_its_own(run_dir):
    result = invoke("evaluate", run_dir, "--transductive")
    assert result.exit_code == 0, result.output
    assert "split 7/3:0: transductive, mean per-class accuracy" in result.output
    assert "transductive" not in invoke("evaluate", run_dir).output
    result = invoke("evaluate", run_dir, "--transductive", "--calibration", "1")
    assert result.exit_code == 1 and "--calibration: " in result.stderr


def test_benchmark_compares_refined_scores_with_each_other_only(tmp_path):
    arguments = ["benchmark", "--systems", "ridge", "--splits", "7/3:0", "--tasks", "zsl"]
    for more in ([], ["--transductive"]):
        result = invoke(*arguments, *more, "--out", tmp_path)
        assert result.exit_code == 0, result.output
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["mode"] for row in rows) == ["inductive", "transductive"]
    text = (tmp_path / "table.md").read_text()
    assert text.count("## ZSL 7/3") == 2 and text.count("## ZSL 7/3, transductive: mean") == 1
    assert "Where a title says transductive" in text
