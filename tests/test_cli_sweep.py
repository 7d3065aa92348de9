"""``mcfa-fast sweep``, and training with what it has found."""

import csv
import json
import sys

import pytest
from cli_run import invoke

import mcfa_fast as mf
from mcfa_fast.experiments import sweep
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished

module = sys.modules[sweep.__module__]  # its name is that of the function

SPLIT = ["--splits", "7/3:0"]
ONE = ["--system", "mcfa", *SPLIT]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch):
    """Makes trainings give what a function of the job says."""

    def prepare(function):
        def serially(source, work, *, workers):
            for job in source:
                yield Finished(job, *function(job), 0.25)

        monkeypatch.setattr(module, "in_workers", serially)

    return prepare


def test_sweep_and_train_with_the_winner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--system", "eszsl", *SPLIT, "--choose", "visual_penalty=1,10,1e9", "--jobs", 2]
    result = invoke("sweep", *options, "--task", "gzsl", "--seeds", "3")
    assert result.exit_code == 0, result.output
    assert "Best of 3 complete trials" in result.output and "trials: 3 complete" in result.output
    assert "among all 7 seen classes" in " ".join(result.output.split())
    assert "s.e." in result.output and "preset" in result.output
    out = tmp_path / "runs" / "sweep-digits-eszsl-gzsl"
    preset, *others = list(csv.DictReader((out / "trials.csv").open()))
    assert [float(row["visual_penalty"]) for row in (preset, *others)] == [1, 10, 1e9]
    best = max(others, key=lambda row: float(row["value"]))
    ahead = float(best["value"]) - float(preset["value"]) > float(best["standard_error"])
    config = mf.RunConfig.model_validate_json((out / "best.json").read_text())
    wanted = {"visual_penalty": float((best if ahead else preset)["visual_penalty"])}
    assert config == mf.RunConfig.of("eszsl", task="gzsl", options=wanted).with_arguments(seed=3)
    assert ("wins: it is ahead by" if ahead else "the preset") in result.output

    training = ["train", "--config", out / "best.json", "--run-dir"]
    result = invoke(*training, tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert mf.RunConfig.model_validate_json((tmp_path / "run" / "run.json").read_text()) == config
    result = invoke(*training, tmp_path / "other", "--seed", 4, "--set", "semantic_penalty=0.5")
    assert result.exit_code == 0, result.output
    trained = mf.RunConfig.model_validate_json((tmp_path / "other" / "run.json").read_text())
    assert trained == config.replace({"semantic_penalty": 0.5}).with_arguments(seed=4)


def test_options_reach_the_sweep(tmp_path, script):
    seen = []
    script(lambda job: (seen.append(job), 0.5 + 0.1 * job.options["learning_rate"], None)[1:])
    options = ["--search", "learning_rate=1e-4:1e-2:log", "--search", "epochs=2:8:3"]
    options += ["--choose", "positives=in,out", "--choose", "nearest.whitening=0.1,0.5"]
    options += ["--set", "kl_weight=0.5", "--seeds", "1,2"]
    options += ["--folds", "2", "--sampler", "random", "--sampler-seed", "9", "--trials", "7"]
    options += ["--splits", "7/3", "--system", "mcfa", "--head", "nearest"]
    options += ["--preset", "reference", "--no-prune"]
    result = invoke("sweep", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Share in the variance" in result.output
    assert "among 3 to 4 held-out classes" in " ".join(result.output.split())
    assert {job.part.split for job in seen} == {f"7/3:{k}" for k in range(5)}
    assert {job.part.seed for job in seen} == {1, 2} and {job.part.fold for job in seen} == {0, 1}
    tried = [job for job in seen if job.trial > 0]
    assert {job.options["epochs"] for job in tried} <= {2, 5, 8} and len(tried) == 6 * 5 * 2 * 2
    identity = json.loads((tmp_path / "sweep.json").read_text())
    assert identity["run"]["options"]["kl_weight"] == 0.5
    assert identity["run"]["options"]["noise"] == "row"
    assert (identity["run"]["head"], identity["sampler_seed"]) == ("nearest", 9)
    selection = identity["run"]["selection"]
    assert (selection["rule"], selection["folds"]) == ("none", 2)
    assert identity["prune"] is False


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.5, 0.6], "trial 1 wins: it is ahead by 10.0 points, more than"),
        ([0.5, 0.51], "the preset stays: trial 1 is ahead by 1.0 points, no more than"),
        ([0.5, 0.4], "the preset wins: no trial is ahead of it"),
        ([None, 0.4], "trial 1 wins: the preset is pruned"),
    ],
)
def test_the_verdict_is_told(values, verdict, tmp_path, script):
    """Standard errors are 2.9 points: folds differ by 5."""

    def value(job):
        mean = values[job.trial]
        return (None if mean is None else mean + 0.05 * (job.step - 1)), None

    script(value)
    result = invoke("sweep", *ONE, "--choose", "epochs=1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert verdict in result.output


def test_trials_that_did_not_finish_are_an_error(tmp_path, script):
    failing = ["sweep", *ONE, "--choose", "epochs=1,2", "--out", tmp_path / "failed"]
    script(lambda job: (None, "Traceback: [no] good"))
    result = invoke(*failing)
    assert result.exit_code == 1
    assert "a trial failed: Traceback: [no] good" in result.output
    assert "no trial is complete" in result.stderr
    script(lambda job: (None, WORKER_DIED) if job.trial else (0.5, None))
    result = invoke(*failing[:-1], tmp_path / "lost")
    assert result.exit_code == 1
    assert "2 trials are unfinished; run again" in result.stderr
    assert "1 complete, 2 unfinished" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "expected --search or --choose"),
        (["--search", "epochs=5"], 1, "search: expected KEY=LOW:HIGH"),
        (["--search", "epochs=0:5"], 1, "epochs: Input should be greater than or equal to 1"),
        (["--choose", "epoch=1,2"], 1, "epoch: mcfa has no such option"),
        (["--choose", "epochs=1,2", "--search", "epochs=1:2"], 1, "epochs: expected one"),
        (["--choose", "epochs=1,2", "--set", "epochs=3"], 1, "epochs: expected to be either"),
        (["--choose", "epochs=1,2", "--system", "gan"], 1, "system: expected one of dual-encoder"),
        (["--choose", "epochs=1,2", "--preset", "best"], 1, "preset: mcfa has paper"),
        (["--choose", "epochs=1,2", "--head", "scores"], 1, "head: mcfa has softmax"),
        (["--choose", "epochs=1,2", "--seeds", "a"], 1, "seeds: expected whole numbers"),
        (["--choose", "epochs=1,2", "--data", "none"], 1, "none"),
        (["--choose", "epochs=1,2", "--splits", "1/1"], 1, "no split '1/1'"),
        (["--choose", "epochs=1,2", "--jobs", "0"], 2, "--jobs"),
        (["--choose", "epochs=1,2", "--sampler", "best"], 2, "--sampler"),
    ],
)
def test_bad_usage_is_one_message(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("sweep", "--system", "mcfa", *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mcfa_fast.experiments.journal", raising=False)
    result = invoke("sweep", *ONE, "--choose", "epochs=1,2", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'mcfa_fast[tune]'" in result.stderr
