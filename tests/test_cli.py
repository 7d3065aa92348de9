"""The command line, on real digits with a training of one epoch."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from cli_run import MCFA, ONE_EPOCH, SOLVED, invoke
from rich.console import Console

import mcfa_fast as mf
from mcfa_fast.cli import app
from mcfa_fast.systems.registry import RECOMMENDED

pytestmark = pytest.mark.usefixtures("one_thread")


def test_python_runs_the_package_as_the_command():
    command = [sys.executable, "-m", "mcfa_fast", "info"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert mf.__version__ in output


def test_train_leaves_a_whole_run_folder(run_dir):
    run = mf.RunConfig.model_validate_json((run_dir / "run.json").read_text())
    assert (run.task, run.system, run.preset, run.head) == ("gzsl", "mcfa", "paper", "softmax")
    assert (run.options.training.epochs, run.options.seed) == (1, 3)
    results = json.loads((run_dir / "results.json").read_text())["results"]
    assert set(results) == {"softmax", "nearest", "ensemble"}
    assert {"checkpoint.pt", "classifier.pt", "data.json", "metrics.csv", "tensorboard"} <= {
        path.name for path in run_dir.iterdir()
    }


def test_train_prints_the_results_of_all_heads_beside_chance(tmp_path):
    result = invoke("train", "--data", "digits", "--split", "7/3:1", *MCFA, "--run-dir", tmp_path)
    assert result.exit_code == 0, result.output
    for word in ("digits, split 7/3:1", "softmax *", "nearest", "ensemble", "ZSL", "* answers"):
        assert word in result.output
    assert re.search(r"chance +│ +33\.3", result.output)


def test_train_takes_the_recommended_system_where_none_is_named(tmp_path):
    result = invoke("train", *ONE_EPOCH, "--set", "selection=none", "--run-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert mf.ZeroShotClassifier.load(tmp_path / "classifier.pt").run_.system == RECOMMENDED


@pytest.mark.parametrize(("head", "row"), [("nearest", "nearest *"), ("ensemble", "ensemble *")])
def test_another_head_of_the_same_run_is_fitted_without_training(run_dir, tmp_path, head, row):
    run = shutil.copytree(run_dir, tmp_path / "run")
    trained = (run / "checkpoint.pt").read_bytes()
    options = ["--task", "gzsl", *MCFA, "--set", "softmax.epochs=2", "--seed", "3"]
    result = invoke("train", *options, "--head", head, "--run-dir", run)
    assert result.exit_code == 0 and row in result.output
    assert (run / "checkpoint.pt").read_bytes() == trained
    classifier = mf.ZeroShotClassifier.load(run / "classifier.pt")
    assert classifier.head_.name == head and classifier.heads_["softmax"].options.epochs == 2
    result = invoke("evaluate", run)
    assert result.exit_code == 0 and row in result.output


def test_results_no_better_than_chance_are_warned_of(run_dir):
    """After one epoch, MCFA's softmax takes no image for one of a seen class."""
    results = json.loads((run_dir / "results.json").read_text())["results"]
    assert results["softmax"]["generalized"]["seen"] <= 0.1
    result = invoke("evaluate", run_dir)
    assert result.exit_code == 0
    assert re.search(r"warning: softmax: S is \d\.\d%, no better than guessing", result.stderr)
    assert "warning" not in result.stdout


def test_runs_of_different_options_have_different_folders_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = mf.data.load("digits")
    data = mf.data.save_folder(digits, tmp_path / "data")
    for name in ("features_32.npy", "features_64.npy"):
        np.save(data / name, digits.features[:, : int(name[9:11])])
    (data / "features.npy").unlink()
    options = ["--data", data, "--features", "64", "--set", "selection=none"]
    weights = [f"--set={name}_weight=0.5" for name in ("alignment", "kl", "reconstruction", "vtov")]
    long = [*MCFA, *weights, "--set", "cross_reconstruction_weight=0.5"]
    for other in (
        SOLVED,
        [*SOLVED, "--features", "32"],
        [*SOLVED, "--semantics", "semantics"],
        ["--system", "sae"],
        [*SOLVED, "--set", "visual_penalty=2", "--set", "semantic_penalty=3"],
        [*SOLVED, "--set", "semantic_penalty=3", "--set", "visual_penalty=2", "--seed", "1"],
        [*MCFA, "--preset", "v0", "--task", "gzsl"],
        *([*long, "--set", f"visual_hidden={width}"] for width in (8, 9)),
    ):
        result = invoke("train", *options, *other)
        assert result.exit_code == 0, result.output
    names = sorted(folder.name for folder in (tmp_path / "runs").iterdir())
    short = [name for name in names if "_weight" not in name]
    end, penalties = "selection=none", "selection=none-semantic_penalty=3-visual_penalty=2"
    assert short == sorted(
        [
            f"data-64-7_3_0-eszsl-zsl-{end}-seed0",
            f"data-32-7_3_0-eszsl-zsl-{end}-seed0",
            f"data-64-semantics-7_3_0-eszsl-zsl-{end}-seed0",
            f"data-64-7_3_0-sae-zsl-{end}-seed0",
            f"data-64-7_3_0-eszsl-zsl-{penalties}-seed0",
            f"data-64-7_3_0-eszsl-zsl-{penalties}-seed1",
            f"data-64-7_3_0-mcfa-v0-gzsl-epochs=1-{end}-softmax.epochs=1-seed0",
        ]
    )
    assert len(names) == 9 and 120 < max(map(len, names)) < 140


def test_runs_of_different_files_of_options_have_different_folders_by_default(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for penalty in (1.0, 2.0):
        config = mf.RunConfig.of("eszsl", options={"visual_penalty": penalty})
        (tmp_path / "best.json").write_text(config.model_dump_json())
        for _ in range(2):  # the second does the first again
            result = invoke("train", "--config", "best.json")
            assert result.exit_code == 0, result.output
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    found = [mf.ZeroShotClassifier.load(f / "classifier.pt").run_ for f in folders]
    assert {run.options.visual_penalty for run in found} == {1.0, 2.0}


def test_a_file_of_options_holds_the_system(run_dir, tmp_path):
    options = ["--config", run_dir / "run.json", "--run-dir", tmp_path]
    result = invoke("train", *options, "--system", "mcfa")
    assert result.exit_code == 2 and "--config" in result.stderr
    for content in ("[1]", "{", '{"system": "mcfa"}', '{"system": "none"}'):
        (tmp_path / "bad.json").write_text(content)
        result = invoke("train", "--config", tmp_path / "bad.json")
        assert result.exit_code == 1 and "Traceback" not in result.output


def test_train_again_with_other_options_refuses_the_folder(run_dir):
    result = invoke("train", "--task", "gzsl", *MCFA, "--set", "epochs=2", "--run-dir", run_dir)
    assert result.exit_code == 1
    assert "epochs" in result.stderr


def test_preset_reference_labels_its_selection_as_optimistic(tmp_path):
    result = invoke("train", *MCFA, "--preset", "reference", "--run-dir", tmp_path)
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
    result = invoke("train", "--data", "mine", *MCFA, "--run-dir", "run")
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in (["evaluate", "../run"], ["report", "../run", "-o", "page.html"]):
        result = invoke(*command)
        assert result.exit_code == 0 and "no embedding map" not in result.output
    (tmp_path / "mine").rename("moved")
    result = invoke("evaluate", "../run")
    assert result.exit_code == 1
    assert f"{tmp_path / 'mine'}: expected a folder" in result.stderr and "--data" in result.stderr
    assert invoke("evaluate", "../run", "--data", "moved").exit_code == 0


@pytest.mark.parametrize("head", ["softmax", "nearest"])
def test_a_calibration_is_of_the_head_that_answers(run_dir, head):
    result = invoke("evaluate", run_dir, "--calibration", "1e6", "--head", head)
    assert result.exit_code == 0, result.output
    assert f"--calibration 1e+06 holds for the head {head} alone" in result.output
    rows = [line.split("│") for line in result.output.splitlines() if line.startswith("│ ")]
    cells = {row[1].strip(): row for row in rows}
    assert cells[f"{head} *"][3].strip() == "0.0"
    assert float(cells[f"{head} *"][7]) == 1e6 and float(cells["ensemble"][7]) == 0
    result = invoke("evaluate", run_dir, "--calibration", "nan")
    assert result.exit_code == 1 and "--calibration: expected a finite number" in result.stderr


def test_names_are_data_and_no_markup(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = mf.data.load("digits")
    names = ("[/red]", ":car:", "[bold]3[/]", "x\x1b[31m", *digits.class_names[4:])
    splits = {"[/red]\x1b[2J:0": (np.arange(7), np.arange(7, 10))}
    dataset = replace(digits, class_names=names, splits=mf.data.splits.ClassSplits(splits))
    mf.data.save_folder(dataset, "odd")
    result = invoke("train", "--data", "odd", *SOLVED, "--task", "gzsl", "--run-dir", "run")
    assert result.exit_code == 0, result.output
    assert r"split [/red]\x1b[2J:0" in result.output
    result = invoke("evaluate", "run", "--per-class")
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("[/red]", ":car:", "[bold]3[/]", r"x\x1b[31m"))
    assert "\x1b" not in result.output
    result = invoke("evaluate", "run", "--split", "[/nothing]\x1b[2J")
    assert result.exit_code == 1 and "[/nothing]" in result.stderr and "\x1b" not in result.stderr


def test_evaluate_takes_no_class_for_unseen_that_was_trained_on(run_dir):
    """The run's unseen digits are 3, 4 and 8; those of the two splits 4 and 8, and 0, 3 and 6."""
    assert invoke("evaluate", run_dir, "--split", "8/2:seed=16").exit_code == 0
    result = invoke("evaluate", run_dir, "--split", "7/3:1")
    assert result.exit_code == 1
    assert "the run was trained on its unseen classes '0' (0), '6' (6)" in result.stderr


def test_a_refused_run_leaves_the_folder_as_it_is(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    result = invoke("train", "--split", "7/3:1", *MCFA, "--run-dir", tmp_path / "run")
    assert result.exit_code == 1 and "belongs to a different run" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")} == before
    assert invoke("evaluate", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("head", ["softmax", "nearest"])
def test_predict_writes_what_the_classifier_says(run_dir, tmp_path, head):
    features = mf.data.load("digits").features[:40]
    np.save(tmp_path / "features.npy", features)
    output = tmp_path / "labels.csv"
    result = invoke(
        "predict", run_dir, tmp_path / "features.npy", "-o", output, "--head", head, "--top", 2
    )
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 80 and [row["rank"] for row in rows[:2]] == ["1", "2"]
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt").with_head(head)
    expected = [classifier.class_names_[c] for c in classifier.predict(features)]
    assert [row["class"] for row in rows[::2]] == expected
    assert float(rows[0]["score"]) == pytest.approx(
        classifier.predict_proba(features).max(axis=1)[0], rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "head"), [([], "nearest"), (["--head", "softmax"], "softmax")]
)
def test_predict_takes_the_head_of_the_saved_classifier(nearest_run, tmp_path, options, head):
    features = mf.data.load("digits").features[:200]
    np.save(tmp_path / "features.npy", features)
    output = tmp_path / "labels.npy"
    arguments = [tmp_path / "features.npy", "-o", output, "--format", "npy", *options]
    result = invoke("predict", nearest_run, *arguments)
    assert result.exit_code == 0 and f"classified with head {head!r}," in result.output
    classifier = mf.ZeroShotClassifier.load(nearest_run / "classifier.pt")
    expected = {
        name: classifier.with_head(name).predict(features) for name in ("nearest", "softmax")
    }
    assert not np.array_equal(expected["nearest"], expected["softmax"])
    assert np.array_equal(np.load(output)["class"][:, 0], expected[head])


def test_predict_shows_its_progress_on_a_terminal_only(run_dir, tmp_path, monkeypatch):
    np.save(tmp_path / "features.npy", mf.data.load("digits").features[:40])
    arguments = ["predict", run_dir, tmp_path / "features.npy", "-o", tmp_path / "a", "--format"]
    result = invoke(*arguments, "npy")
    assert result.exit_code == 0 and "40 rows classified" in result.output
    assert "40/40" not in result.output
    assert np.load(tmp_path / "a").shape == (40, 1)
    terminal = Console(force_terminal=True, file=io.StringIO())
    monkeypatch.setattr("mcfa_fast.cli.common.console", terminal)
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
        (["train", "--task", "fast"], 2, "task"),
        (["train", "--system", "mcfaa"], 1, "dual-encoder, "),
        (["train", "--system", "mcfa", "--preset", "best"], 1, "mcfa has paper, reference"),
        (["train", "--head", "softmax"], 1, "dual-encoder has nearest"),
        (["train", "--config", "no-such-file"], 1, "no-such-file"),
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


def test_with_few_seen_classes_the_error_says_what_helps(tmp_path):
    options = [*MCFA, "--split", "4/3:seed=0", "--run-dir", tmp_path / "run"]
    result = invoke("train", *options)
    assert result.exit_code == 1
    (advice,) = re.findall(r"--set classes_per_batch=\d", result.stderr)
    result = invoke("train", *options, *advice.split())
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
    assert result.stdout.count("chance") == 2


def test_without_its_extra_the_command_names_it(tmp_path):
    script = (
        "import importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name: None if name == 'typer' else find(name); "
        "import runpy; runpy.run_module('mcfa_fast', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: mcfa_fast.cli: typer is not installed; pip install 'mcfa_fast[cli]'"
    ]
