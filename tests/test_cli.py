"""The command line, on real digits with a training of one epoch."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from cli_run import ONE_EPOCH, invoke
from rich.console import Console

import mcfa_fast as mf
from mcfa_fast.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


def test_python_runs_the_package_as_the_command():
    command = [sys.executable, "-m", "mcfa_fast", "info"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert mf.__version__ in output


def test_train_leaves_a_whole_run_folder(run_dir):
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["task"], config["mode"], config["epochs"], config["seed"]) == (
        "gzsl",
        "paper",
        1,
        3,
    )
    results = json.loads((run_dir / "results.json").read_text())["results"]
    assert set(results) == {"softmax", "nearest", "ensemble"}
    assert {"checkpoint.pt", "classifier.pt", "data.json", "metrics.csv", "tensorboard"} <= {
        path.name for path in run_dir.iterdir()
    }


def test_train_prints_the_results_of_both_classifiers(tmp_path):
    result = invoke(
        "train", "--data", "digits", "--split", "7/3:1", *ONE_EPOCH, "--run-dir", tmp_path
    )
    assert result.exit_code == 0, result.output
    for word in ("digits, split 7/3:1", "softmax", "nearest", "ZSL", "take softmax unless"):
        assert word in result.output


def test_runs_of_different_options_have_different_folders_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = mf.data.load("digits")
    data = mf.data.save_folder(digits, tmp_path / "data")
    for name in ("features_32.npy", "features_64.npy"):
        np.save(data / name, digits.features[:, : int(name[9:11])])
    (data / "features.npy").unlink()
    options = ["--data", data, "--features", "64", *ONE_EPOCH]
    many = [f"--set={name}_weight=0.5" for name in ("alignment", "kl", "reconstruction", "vtov")]
    for other in (
        [],
        ["--features", "32"],
        ["--semantics", "semantics"],
        ["--set", "epochs=2"],
        ["--set", "positives=in", "--set", "kl_warmup=[0, 5]"],
        ["--set", "kl_warmup=[0, 5]", "--set", "positives=in", "--seed", "1"],
        *([*many, "--set", f"visual_dropout=0.{digit}"] for digit in (1, 2)),
    ):
        result = invoke("train", *options, *other)
        assert result.exit_code == 0, result.output
    names = sorted(folder.name for folder in (tmp_path / "runs").iterdir())
    short = [name for name in names if "weight" not in name]
    stem, end = "7_3_0-zsl-paper-classifier_epochs=1-epochs", "seed0"
    assert short == sorted(
        [
            f"data-64-{stem}=1-{end}",
            f"data-32-{stem}=1-{end}",
            f"data-64-semantics-{stem}=1-{end}",
            f"data-64-{stem}=2-{end}",
            f"data-64-{stem}=1-kl_warmup=_0,_5_-positives=in-{end}",
            f"data-64-{stem}=1-kl_warmup=_0,_5_-positives=in-seed1",
        ]
    )
    assert len(names) == 8 and 120 < max(map(len, names)) < 140


def test_runs_of_different_files_of_options_have_different_folders_by_default(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        config = mf.MCFAConfig.paper(epochs=number, classifier_epochs=1)
        (tmp_path / "best.json").write_text(config.model_dump_json())
        for _ in range(2):  # the second resumes the first
            result = invoke("train", "--config", "best.json")
            assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_train_again_with_other_options_refuses_the_folder(run_dir):
    result = invoke("train", "--preset", "gzsl", "--set", "epochs=2", "--run-dir", run_dir)
    assert result.exit_code == 1
    assert "epochs" in result.stderr


def test_reference_mode_labels_its_selection_as_optimistic(tmp_path):
    result = invoke("train", "--mode", "reference", *ONE_EPOCH, "--run-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "optimistic" in result.output


def test_evaluate_gives_the_results_of_the_run_again(run_dir):
    result = invoke("evaluate", run_dir, "--per-class")
    assert result.exit_code == 0, result.output
    trained = json.loads((run_dir / "results.json").read_text())["results"]["nearest"]
    assert f"{100 * trained['accuracy']:.1f}" in result.output
    assert all(name in result.output for name in mf.data.load("digits").class_names)


def test_evaluate_finds_the_data_from_another_folder_or_asks_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    mf.data.save_folder(mf.data.load("digits"), "mine")
    result = invoke("train", "--data", "mine", *ONE_EPOCH, "--run-dir", "run")
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in (["evaluate", "../run"], ["report", "../run", "-o", "page.html"]):
        result = invoke(*command)
        assert result.exit_code == 0 and "no latent map" not in result.output
    (tmp_path / "mine").rename("moved")
    result = invoke("evaluate", "../run")
    assert result.exit_code == 1
    assert f"{tmp_path / 'mine'}: expected a folder" in result.stderr and "--data" in result.stderr
    assert invoke("evaluate", "../run", "--data", "moved").exit_code == 0


def test_evaluate_with_a_calibration_moves_from_seen_to_unseen(run_dir):
    result = invoke("evaluate", run_dir, "--calibration", "1e6")
    assert result.exit_code == 0, result.output
    seen = [
        line.split("│")[3].strip() for line in result.output.splitlines() if "│ softmax" in line
    ]
    assert seen == ["0.0"]


def test_evaluate_takes_no_class_for_unseen_that_was_trained_on(run_dir):
    """The run's unseen digits are 3, 4 and 8; those of the two splits 4 and 8, and 0, 3 and 6."""
    assert invoke("evaluate", run_dir, "--split", "8/2:seed=16").exit_code == 0
    result = invoke("evaluate", run_dir, "--split", "7/3:1")
    assert result.exit_code == 1
    assert "the run was trained on its unseen classes '0' (0), '6' (6)" in result.stderr


def test_a_refused_run_leaves_the_folder_as_it_is(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    result = invoke("train", "--split", "7/3:1", *ONE_EPOCH, "--run-dir", tmp_path / "run")
    assert result.exit_code == 1 and "belongs to a different run" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before
    assert invoke("evaluate", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("method", ["softmax", "nearest"])
def test_predict_writes_what_the_classifier_says(run_dir, tmp_path, method):
    features = mf.data.load("digits").features[:40]
    np.save(tmp_path / "features.npy", features)
    output = tmp_path / "labels.csv"
    result = invoke(
        "predict", run_dir, tmp_path / "features.npy", "-o", output, "--method", method, "--top", 2
    )
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 80 and [row["rank"] for row in rows[:2]] == ["1", "2"]
    classifier = mf.MCFAClassifier.load(run_dir / "classifier.pt").set_params(method=method)
    expected = [classifier.class_names_[c] for c in classifier.predict(features)]
    assert [row["class"] for row in rows[::2]] == expected
    assert float(rows[0]["score"]) == pytest.approx(
        classifier.predict_proba(features).max(axis=1)[0], rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "method"), [([], "nearest"), (["--method", "softmax"], "softmax")]
)
def test_predict_takes_the_method_of_the_saved_classifier(nearest_run, tmp_path, options, method):
    features = mf.data.load("digits").features[:200]
    np.save(tmp_path / "features.npy", features)
    output = tmp_path / "labels.npy"
    arguments = [tmp_path / "features.npy", "-o", output, "--format", "npy", *options]
    result = invoke("predict", nearest_run, *arguments)
    assert result.exit_code == 0 and f"classified with {method}," in result.output
    classifier = mf.MCFAClassifier.load(nearest_run / "classifier.pt")
    expected = {
        name: classifier.set_params(method=name).predict(features)
        for name in ("nearest", "softmax")
    }
    assert not np.array_equal(expected["nearest"], expected["softmax"])
    assert np.array_equal(np.load(output)["class"][:, 0], expected[method])


def test_mode_best_saves_the_classifier_it_is_meant_for(tmp_path):
    short = ["--set", "selection=last", "--set", "classifier_epochs=1"]
    result = invoke("train", "--mode", "best", *short, "--run-dir", tmp_path)
    assert result.exit_code == 0 and "take nearest unless --method" in result.output
    assert mf.MCFAClassifier.load(tmp_path / "classifier.pt").method == "nearest"
    result = invoke("evaluate", tmp_path)
    assert result.exit_code == 0 and "take nearest unless --method" in result.output


def test_predict_shows_its_progress_on_a_terminal_only(run_dir, tmp_path, monkeypatch):
    np.save(tmp_path / "features.npy", mf.data.load("digits").features[:40])
    arguments = ["predict", run_dir, tmp_path / "features.npy", "-o", tmp_path / "a", "--format"]
    result = invoke(*arguments, "npy")
    assert result.exit_code == 0 and "40 rows classified" in result.output
    assert "40/40" not in result.output
    assert np.load(tmp_path / "a").shape == (40, 1)
    terminal = Console(force_terminal=True, file=io.StringIO())
    monkeypatch.setattr("mcfa_fast.cli.predict.console", terminal)
    assert invoke(*arguments, "csv").exit_code == 0
    assert "40/40" in terminal.file.getvalue()


def test_help_shows_flags_without_a_value():
    commands = typer.main.get_command(app).commands
    flags = [
        (command, option.opts[0])
        for command in commands
        for option in commands[command].params
        if getattr(option, "is_flag", False)
    ]
    assert len(flags) > 4
    for command, flag in flags:
        lines = [line for line in invoke(command, "--help").output.splitlines() if flag in line]
        assert lines and not any("bool" in line.lower() for line in lines)


def test_info_tells_versions_build_and_devices():
    result = invoke("info")
    assert result.exit_code == 0, result.output
    for word in (mf.__version__, torch.__version__, "extension", "FAISS", "OpenMP", "cpu"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--data", "no-such-folder"], 1, "no-such-folder"),
        (["train", "--split", "9/9:0"], 1, "9/9:0"),
        (["train", "--set", "epochs=0"], 1, "epochs"),
        (["train", "--set", "epoch=5"], 1, "epoch"),
        (["train", "--set", "epochs"], 2, "KEY=VALUE"),
        (["train", "--mode", "fast"], 2, "mode"),
        (["evaluate", "no-such-run"], 1, "no-such-run"),
        (["predict", "no-such-run", "features.npy", "-o", "out.csv"], 1, "no-such-run"),
        (["guess"], 2, "guess"),
    ],
)
def test_bad_usage_is_one_message_and_an_exit_code(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_with_few_seen_classes_the_error_says_what_helps(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = "4/3:seed=0" if command == "train" else "5/3:seed=0"
    options = {"train": ["--split", split], "sweep": ["--splits", split, "--choose", "epochs=1"]}
    result = invoke(command, *options[command])
    assert result.exit_code == 1
    (advice,) = re.findall(r"--set classes_per_batch=\d", result.stderr)
    result = invoke(command, *options[command], *advice.split(), "--set", "classifier_epochs=1")
    assert result.exit_code == 0, result.output


def test_predict_names_a_bad_features_file(run_dir, tmp_path):
    np.save(tmp_path / "narrow.npy", np.zeros((3, 5), dtype=np.float32))
    output = tmp_path / "labels.csv"
    result = invoke("predict", run_dir, tmp_path / "narrow.npy", "-o", output)
    assert result.exit_code == 1 and "64" in result.stderr and not output.exists()
    (tmp_path / "text.npy").write_text("no array")
    result = invoke("predict", run_dir, tmp_path / "text.npy", "-o", output)
    assert result.exit_code == 1 and "text.npy: cannot be read" in result.stderr
    assert list(tmp_path.glob("labels*")) == []


def test_the_installed_command_runs_the_demo(tmp_path):
    command = Path(sys.executable).parent / "mcfa-fast"
    result = subprocess.run(
        [command, "demo", "--quick"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "ZSL" in result.stdout and "GZSL" in result.stdout and "H" in result.stdout
