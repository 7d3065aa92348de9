"""``mcfa-fast benchmark`` on digits: its files, resuming, and what it refuses."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import time

import pytest
from cli_run import invoke
from data_helpers import write_folder

from mcfa_fast import data
from mcfa_fast.experiments.jobs import Finished
from mcfa_fast.systems import registry
from mcfa_fast.systems.mcfa import presets

SYSTEMS = ["--systems", "sae,ridge", "--against", "ridge"]
ARGUMENTS = ["benchmark", *SYSTEMS, "--splits", "7/3:1,7/3:0", "--seeds", "0"]


pytestmark = pytest.mark.usefixtures("one_thread")


def results_of(folder):
    """Lines of results.csv without durations."""
    with open(folder / "results.csv", newline="") as file:
        return [{**row, "seconds": float(row["seconds"]) > 0} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison of two systems on two splits and both tasks."""
    folder = tmp_path_factory.mktemp("benchmark") / "whole"
    result = invoke(*ARGUMENTS, "--out", folder)
    assert result.exit_code == 0, result.output
    assert "ZSL 7/3" in result.output and "H less that of ridge" in result.output
    assert "chance" in result.output
    return folder


def test_results_and_tables(folder):
    rows = results_of(folder)
    # In the order of the registry, whatever was asked for first.
    assert [(r["task"], r["split"], r["label"]) for r in rows] == [
        (task, split, name)
        for task in ("zsl", "gzsl")
        for split in ("7/3:0", "7/3:1")
        for name in ("ridge", "sae")
    ]
    assert len(rows) == 8
    text = (folder / "table.md").read_text()
    for task, measure in (("zsl", "accuracy"), ("gzsl", "harmonic")):
        values = [float(r[measure]) for r in rows if (r["task"], r["label"]) == (task, "sae")]
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


def test_without_results_of_the_opponent_there_are_no_differences(folder):
    """The opponent is not the best of those that are there."""
    result = invoke("benchmark", "--systems", "ridge", "--splits", "7/3:0", "--out", folder)
    assert result.exit_code == 0, result.output
    assert "no differences: there are no results of dual-encoder; --against" in result.output
    assert "less that of" not in (folder / "table.md").read_text()
    assert "Differences\nare to dual-encoder" in (folder / "table.md").read_text()


def test_refuses_results_that_are_out_of_date(folder, tmp_path, monkeypatch):
    """Of a system that is asked for, or only one more row of the tables."""
    shutil.copytree(folder, tmp_path / "x")
    sae = registry.find("sae")
    narrow = dataclasses.replace(sae, grid={**sae.grid, "direction": ("encode",)})
    monkeypatch.setitem(registry.SYSTEMS, "sae", narrow)
    before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir() if path.is_file()}
    for systems in ("ridge,sae", "ridge"):
        result = invoke(*ARGUMENTS, "--systems", systems, "--out", tmp_path / "x")
        assert result.exit_code == 1
        assert "4 of 8 results are out of date, the first: sae paper 7/3:" in result.stderr
        assert "grid.direction was ['encode', 'decode'] and is ['encode']" in result.stderr
    for name, content in before.items():
        assert (tmp_path / "x" / name).read_bytes() == content


def test_refuses_results_of_an_earlier_preset(tmp_path, monkeypatch):
    monkeypatch.setitem(presets.CHANGES["latent-16"], "epochs", 1)
    arguments = ["--systems", "mcfa:latent-16", "--tasks", "zsl", "--splits", "7/3:0"]
    # What workers do is another matter: theirs is the preset of the file.
    monkeypatch.setattr("mcfa_fast.experiments.jobs.in_workers", in_this_process)
    result = invoke("benchmark", *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    labels = [row["label"] for row in results_of(tmp_path)]
    assert labels == [f"mcfa:latent-16/{head}" for head in ("softmax", "nearest", "ensemble")]
    monkeypatch.undo()
    result = invoke("benchmark", *arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert "run.options.training.epochs was 1 and is 50" in result.stderr


def in_this_process(jobs, work, *, workers):
    for job in jobs:
        yield Finished(job, work(job), None, 0.25)


def test_a_killed_comparison_resumes_to_the_same(folder, tmp_path):
    command = [sys.executable, "-m", "mcfa_fast", *ARGUMENTS, "--out", str(tmp_path / "x")]
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
    arguments = ["benchmark", "--systems", "ridge", "--tasks", "zsl", "--out", tmp_path]
    result = invoke(*arguments, "--splits", "3/3:seed=0,6/3:seed=0")
    assert result.exit_code == 1
    assert "failed: ridge paper 3/3:seed=0 zsl 0" in result.output
    assert "expected 4 or more seen classes" in result.output
    assert "1 of 2 runs failed" in result.stderr
    assert [row["split"] for row in results_of(tmp_path)] == ["6/3:seed=0"]


def test_refuses_a_folder_of_other_data(folder, tmp_path):
    other = write_folder(tmp_path / "data")
    result = invoke("benchmark", "--data", other, "--out", folder, "--splits", "3/2:seed=0")
    assert result.exit_code == 1 and "belongs to a different run" in result.stderr


def test_data_without_splits_needs_one(tmp_path):
    result = invoke("benchmark", "--data", write_folder(tmp_path / "data"), "--out", tmp_path)
    assert result.exit_code == 1 and "has the data splits?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "magic"], "systems: expected systems among dual-encoder"),
        (["--systems", "mcfa:magic"], "systems: mcfa has presets paper, reference"),
        (["--splits", "9/9"], "no split '9/9'"),
        (["--tasks", "sideways"], "task: expected 'zsl' or 'gzsl', got 'sideways'"),
        (["--seeds", "a"], "seeds: expected whole numbers with commas, got 'a'"),
        (
            ["--against", "magic"],
            "against: expected one of dual-encoder, eszsl, ridge, sae, got 'magic'",
        ),
    ],
)
def test_bad_options_are_one_message(arguments, message, tmp_path):
    result = invoke("benchmark", "--out", tmp_path, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "jobs.jsonl").exists()


def test_a_system_that_does_not_suit_the_data_is_left_out(tmp_path):
    arguments = ["benchmark", "--systems", "text,sae,ridge", "--against", "ridge"]
    result = invoke(*arguments, "--splits", "7/3:0", "--tasks", "zsl", "--out", tmp_path / "other")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "text-matching is left out: semantics: text matching expected descriptors" in text
    assert {row["system"] for row in results_of(tmp_path / "other")} == {"sae", "ridge"}
