"""``mcfa-fast benchmark`` on digits: its files, resuming, and what it refuses."""

import csv
import json
import shutil
import subprocess
import sys
import time

import pytest
from data_helpers import write_folder
from typer.testing import CliRunner

from mcfa_fast import data, presets
from mcfa_fast.cli import app
from mcfa_fast.studies import METHODS

ARGUMENTS = ["benchmark", "--methods", "ridge,sae", "--splits", "7/3:0,7/3:1", "--seeds", "0"]


pytestmark = pytest.mark.usefixtures("one_thread")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def results_of(folder):
    """Lines of results.csv without durations, in an order of their own."""
    with open(folder / "results.csv", newline="") as file:
        rows = [{**row, "seconds": float(row["seconds"]) > 0} for row in csv.DictReader(file)]
    return sorted(rows, key=str)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison of two methods on two splits and both tasks."""
    folder = tmp_path_factory.mktemp("benchmark") / "whole"
    result = invoke(*ARGUMENTS, "--out", folder)
    assert result.exit_code == 0, result.output
    assert "ZSL 7/3" in result.output and "H less that of" in result.output
    return folder


def test_results_and_tables(folder):
    rows = results_of(folder)
    assert {(r["task"], r["split"], r["classifier"]) for r in rows} == {
        (task, split, name)
        for task in ("zsl", "gzsl")
        for split in ("7/3:0", "7/3:1")
        for name in ("ridge", "sae")
    }
    assert len(rows) == 8
    text = (folder / "table.md").read_text()
    for task, measure in (("zsl", "accuracy"), ("gzsl", "harmonic")):
        values = [float(r[measure]) for r in rows if (r["task"], r["classifier"]) == (task, "sae")]
        assert f"{100 * sum(values) / 2:.1f} ± " in text
    assert "95% interval" in text
    dataset = data.load("digits")
    assert "digits" in text and dataset.name in text


def test_a_finished_comparison_is_not_run_again(folder):
    before = (folder / "jobs.jsonl").read_bytes()
    result = invoke(*ARGUMENTS, "--out", folder, "--against", "sae")
    assert result.exit_code == 0, result.output
    assert (folder / "jobs.jsonl").read_bytes() == before
    assert "H less that of sae" in (folder / "table.md").read_text()


def test_refuses_results_that_are_out_of_date(folder, tmp_path, monkeypatch):
    """Of a method that is asked for, or only one more row of the tables."""
    shutil.copytree(folder, tmp_path / "x")
    monkeypatch.setitem(METHODS["sae"].grid, "direction", ("encode",))
    before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    for methods in ("ridge,sae", "ridge"):
        result = invoke(*ARGUMENTS, "--methods", methods, "--out", tmp_path / "x")
        assert result.exit_code == 1
        assert "4 of 8 results are out of date, the first: sae 7/3:0 zsl 0" in result.stderr
        assert "direction was ['encode', 'decode'] and is ['encode']" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before


def test_refuses_results_of_an_earlier_preset(tmp_path, monkeypatch):
    monkeypatch.setitem(presets._BEST, "epochs", 1)
    arguments = ["--methods", "mcfa-best", "--tasks", "zsl", "--splits", "7/3:0"]
    result = invoke("benchmark", *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    monkeypatch.undo()
    result = invoke("benchmark", *arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert "config.epochs was 1 and is 8" in result.stderr


def test_a_killed_comparison_resumes_to_the_same(folder, tmp_path):
    command = [sys.executable, "-m", "mcfa_fast.cli", *ARGUMENTS, "--out", str(tmp_path / "x")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log, deadline = tmp_path / "x" / "jobs.jsonl", time.monotonic() + 120
    while not log.exists() or b"\n" not in log.read_bytes():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "x" / "results.csv").exists()
    first = log.read_bytes().splitlines()[0]
    result = invoke(*ARGUMENTS, "--out", tmp_path / "x", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert log.read_bytes().splitlines()[0] == first
    jobs = [json.dumps(json.loads(line)["job"]) for line in log.read_bytes().splitlines()]
    assert len(jobs) == len(set(jobs)) == 8
    assert results_of(tmp_path / "x") == results_of(folder)


def test_failed_runs_are_shown_and_the_others_are_kept(tmp_path):
    """Of three seen classes no fold can be made."""
    arguments = ["benchmark", "--methods", "ridge", "--tasks", "zsl", "--out", tmp_path]
    result = invoke(*arguments, "--splits", "3/3:seed=0,6/3:seed=0")
    assert result.exit_code == 1
    assert "failed: ridge 3/3:seed=0 zsl 0" in result.output
    assert "expected 4 or more seen classes" in result.output
    assert "1 of 2 runs failed" in result.stderr
    assert [row["split"] for row in results_of(tmp_path)] == ["6/3:seed=0"]


def test_refuses_a_folder_of_other_data(folder, tmp_path):
    other = write_folder(tmp_path / "data")
    result = invoke("benchmark", "--data", other, "--out", folder, "--splits", "3/2:seed=0")
    assert result.exit_code == 1 and "belongs to a different run" in result.stderr


def test_data_without_splits_needs_one(tmp_path):
    result = invoke("benchmark", "--data", write_folder(tmp_path / "data"), "--out", tmp_path)
    assert result.exit_code == 1 and "splits: expected at least one" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "methods: expected names among"),
        (["--splits", "9/9"], "no split '9/9'"),
        (["--tasks", "sideways"], "tasks: expected 'zsl' or 'gzsl', got 'sideways'"),
        (["--seeds", "a"], "seeds: expected whole numbers with commas, got 'a'"),
        (["--against", "magic"], "against: expected one of eszsl, ridge, sae, got 'magic'"),
    ],
)
def test_bad_options_are_one_message(arguments, message, tmp_path):
    result = invoke("benchmark", "--out", tmp_path, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "jobs.jsonl").exists()
