"""``mcfa-fast sweep``, and training with what it has found."""

import csv
import json
import sys

import pytest
from cli_run import invoke

import mcfa_fast as mf
from mcfa_fast.studies import sweep
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished

module = sys.modules[sweep.__module__]  # its name is that of the function

SMALL = [
    f"--set={option}"
    for option in (
        "classes_per_batch=4",
        "instances_per_class=20",
        "latent_features=8",
        "visual_hidden=16",
        "semantic_hidden=16",
        "classifier_epochs=1",
    )
]
ONE = ["--splits", "7/3:0", *SMALL]


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


def test_sweep_and_train_with_the_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*ONE, "--choose", "epochs=1,2", "--choose", "kl_warmup=null,[0,2]", "--jobs", 2]
    result = invoke("sweep", *options, "--task", "gzsl", "--seeds", "3")
    assert result.exit_code == 0, result.output
    assert "Best of 4 complete trials" in result.output and "trials: 4 complete" in result.output
    out = tmp_path / "runs" / "sweep-digits-gzsl-paper"
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert [(row["epochs"], row["kl_warmup"]) for row in rows] == [
        (epochs, warmup) for epochs in "12" for warmup in ("null", "[0, 2]")
    ]
    best = max(rows, key=lambda row: float(row["value"]))
    config = mf.MCFAConfig.model_validate_json((out / "best.json").read_text())
    assert (config.task, config.seed, config.epochs) == ("gzsl", 3, int(best["epochs"]))
    assert config.kl_warmup == (None if best["kl_warmup"] == "null" else (0, 2))

    training = ["train", "--config", out / "best.json", "--run-dir"]
    result = invoke(*training, tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == config.model_dump(
        mode="json"
    )
    result = invoke(*training, tmp_path / "other", "--seed", 4, "--set", "kl_weight=0.5")
    assert result.exit_code == 0, result.output
    trained = mf.MCFAConfig(**json.loads((tmp_path / "other" / "config.json").read_text()))
    assert trained == config.replace(seed=4, kl_weight=0.5)


def test_options_reach_the_sweep(tmp_path, script):
    seen = []
    script(lambda job: (seen.append(job), 0.5 + 0.1 * job.options["learning_rate"], None)[1:])
    options = ["--search", "learning_rate=1e-4:1e-2:log", "--search", "epochs=2:8:3"]
    options += ["--choose", "positives=in,out", "--set", "kl_weight=0.5", "--seeds", "1,2"]
    options += ["--folds", "2", "--sampler", "random", "--sampler-seed", "9", "--trials", "6"]
    options += ["--splits", "7/3", "--method", "nearest", "--mode", "reference", "--no-prune"]
    options += [o.replace("batch=4", "batch=3") for o in SMALL]
    result = invoke("sweep", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Share in the variance" in result.output
    assert {job.part.split for job in seen} == {f"7/3:{k}" for k in range(5)}
    assert {job.part.seed for job in seen} == {1, 2} and {job.part.fold for job in seen} == {0, 1}
    assert {job.options["epochs"] for job in seen} <= {2, 5, 8} and len(seen) == 6 * 5 * 2 * 2
    identity = json.loads((tmp_path / "sweep.json").read_text())
    assert identity["config"]["kl_weight"] == 0.5 and identity["config"]["noise"] == "row"
    assert (identity["method"], identity["sampler_seed"]) == ("nearest", 9)
    assert identity["prune"] is False


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
    assert "1 trials are unfinished; run again" in result.stderr
    assert "1 complete, 1 unfinished" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "expected --search or --choose"),
        (["--search", "epochs=5"], 1, "search: expected KEY=LOW:HIGH"),
        (["--search", "epochs=0:5"], 1, "epochs: Input should be greater than or equal to 1"),
        (["--choose", "epoch=1,2"], 1, "epoch: no option of MCFAConfig"),
        (["--choose", "epochs=1,2", "--search", "epochs=1:2"], 1, "epochs: expected one"),
        (["--choose", "epochs=1,2", "--set", "epochs=3"], 1, "epochs: expected to be either"),
        (["--choose", "epochs=1,2", "--seeds", "a"], 1, "seeds: expected whole numbers"),
        (["--choose", "epochs=1,2", "--data", "none"], 1, "none"),
        (["--choose", "epochs=1,2", "--splits", "1/1"], 1, "no split '1/1'"),
        (["--choose", "epochs=1,2", "--jobs", "0"], 2, "--jobs"),
        (["--choose", "epochs=1,2", "--sampler", "best"], 2, "--sampler"),
    ],
)
def test_bad_usage_is_one_message(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("sweep", *SMALL, *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mcfa_fast.experiments.journal", raising=False)
    result = invoke("sweep", *ONE, "--choose", "epochs=1,2", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'mcfa_fast[tune]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "no-such-file.json"], 1, "no-such-file.json"),
        (["--config", "list.json"], 1, "list.json: expected a JSON object"),
        (["--config", "text.json"], 1, "text.json: expected a JSON object"),
        (["--config", "wrong.json"], 1, "epoch: "),
        (["--config", "good.json", "--preset", "gzsl"], 2, "--preset and --mode"),
        (["--config", "good.json", "--mode", "paper"], 2, "--preset and --mode"),
        (["--config", "good.json", "--set", "epochs=0"], 1, "epochs: "),
    ],
)
def test_bad_configuration_files_are_named(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {"list": "[]", "text": "epochs: 1", "wrong": '{"epoch": 1}', "good": "{}"}
    for name, text in contents.items():
        (tmp_path / f"{name}.json").write_text(text)
    result = invoke("train", *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()
