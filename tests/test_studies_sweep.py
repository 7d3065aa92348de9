"""Sweeps over digits with small models: what is tried, what it is worth, and what survives."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import optuna
import pytest

import mcfa_fast as mf
from mcfa_fast.selection.folds import class_folds
from mcfa_fast.data.save import save_folder
from mcfa_fast.data.splits import Rows, RowSplits
from mcfa_fast.evaluation import harmonic_mean, mean_class_accuracy
from mcfa_fast.studies import Choice, Range, sweep
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished
from mcfa_fast.experiments.journal import Journal
from mcfa_fast.storage.checkpoint import CheckpointError

module = sys.modules[sweep.__module__]  # its name is that of the function

SMALL = {
    "latent_features": 8,
    "visual_hidden": 32,
    "semantic_hidden": 32,
    "classes_per_batch": 4,
    "instances_per_class": 20,
    "learning_rate": 3e-3,
    "classifier_epochs": 3,
    "unseen_latents": 50,
}
GRID = {"epochs": Range(1, 3), "positives": Choice(("in", "out"))}
RANGES = {"learning_rate": Range(1e-4, 1e-2, log=True), "epochs": Range(1, 4)}


pytestmark = pytest.mark.usefixtures("one_thread")


def run(out, search=GRID, *, fixed=None, splits=("7/3:0",), **options):
    if fixed is None:
        fixed = {key: value for key, value in SMALL.items() if key not in search}
    if search is GRID:
        options = {"sampler": "grid", **options}
    return sweep(out, search, fixed=fixed, splits=splits, **options)


def outcome(rows):
    return [replace(row, seconds=None) for row in rows]


@pytest.fixture
def in_process(monkeypatch):
    """Trains in this process, which takes no time to start."""

    def serially(jobs, work, *, workers):
        for job in jobs:
            yield Finished(job, work(job), None, 0.25)

    monkeypatch.setattr(module, "in_workers", serially)


@pytest.fixture
def script(monkeypatch):
    """Makes trainings give what a function of the job says, or its error; returns the jobs."""

    def prepare(function):
        jobs = []

        def serially(source, work, *, workers):
            for job in source:
                jobs.append(job)
                value = function(job)
                failed = isinstance(value, str)
                yield Finished(job, None if failed else value, value if failed else None, 0.25)

        monkeypatch.setattr(module, "in_workers", serially)
        return jobs

    return prepare


# What is tried


def test_workers_give_the_grid_once_and_the_same_as_one_process(tmp_path, monkeypatch, request):
    parallel = run(tmp_path / "parallel", jobs=2)
    request.getfixturevalue("in_process")
    alone = run(tmp_path / "alone")
    assert outcome(parallel.rows) == outcome(alone.rows)
    assert parallel.best == alone.best
    points = [(row.options["epochs"], row.options["positives"]) for row in alone.rows]
    assert points == [(e, p) for e in (1, 2, 3) for p in ("in", "out")]
    assert {row.state for row in alone.rows} == {"complete"}
    assert len({row.value for row in alone.rows}) > 1
    again = run(tmp_path / "parallel", on_progress=lambda state: pytest.fail("nothing is left"))
    assert again.rows == parallel.rows


def test_files_tell_every_trial_and_the_best(tmp_path, in_process):
    result = run(tmp_path, splits=("7/3:0", "7/3:1"), seeds=(5, 6))
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert len(rows) == 6
    for row, wanted in zip(rows, result.rows, strict=True):
        assert int(row["trial"]) == wanted.number and row["state"] == "complete"
        assert float(row["value"]) == wanted.value
        assert int(row["epochs"]) == wanted.options["epochs"]
        assert row["positives"] == wanted.options["positives"]
        assert float(row["value"]) == pytest.approx((float(row["7/3:0"]) + float(row["7/3:1"])) / 2)
        assert float(row["seconds"]) == 0.25 * 12  # two splits, two seeds, three folds
    best = max(result.rows, key=lambda row: row.value)
    config = mf.MCFAConfig.model_validate_json((tmp_path / "best.json").read_text())
    assert config == result.best == mf.MCFAConfig.paper("zsl", seed=5, **SMALL, **best.options)
    assert set(result.importances) == set(GRID)
    assert sum(result.importances.values()) == pytest.approx(1)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sampler_seed_decides_the_trials(sampler, tmp_path, script):
    script(lambda job: 1 / (1 + abs(np.log(job.options["learning_rate"] / 1e-3))))
    options = {"sampler": sampler, "trials": 25, "prune": False}
    one, same, other = (
        run(tmp_path / name, RANGES, sampler_seed=seed, **options)
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert one.rows == same.rows
    assert one.rows[0].options != other.rows[0].options
    assert all(1 <= row.options["epochs"] <= 4 for row in one.rows)
    assert len({row.options["learning_rate"] for row in one.rows}) == 25
    if sampler == "tpe":  # it has learned where the values are high
        values = [row.value for row in one.rows]
        assert np.mean(values[15:]) > np.mean(values[:10]) + 0.1


def test_ranges_with_steps_and_tuples_are_sampled(tmp_path, script):
    space = {
        "temperature": Range(0.1, 0.45, step=0.1),
        "instances_per_class": Range(2, 9, step=3),
        "kl_warmup": Choice((None, [0, 10])),
        "chunk_size": Choice((None, 64)),
    }
    jobs = script(lambda job: 0.5)
    result = run(tmp_path, space, trials=30, sampler="random")
    options = [job.options for job in jobs]
    assert {values["instances_per_class"] for values in options} == {2, 5, 8}
    assert {values["kl_warmup"] for values in options} == {None, (0, 10)}
    assert {values["chunk_size"] for values in options} == {None, 64}
    temperatures = {values["temperature"] for values in options}
    assert sorted(temperatures) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert {row["kl_warmup"] for row in rows} == {"null", "[0, 10]"}
    assert result.importances == {}  # all trials are equally good


def test_choices_alone_are_a_grid_and_a_range_is_sampled(tmp_path, script):
    script(lambda job: 0.5)
    assert len(run(tmp_path / "choices", {"positives": Choice(("in", "out"))}).rows) == 2
    assert len(run(tmp_path / "range", {"epochs": Range(1, 3)}).rows) == 50
    assert len(run(tmp_path / "few", {"epochs": Range(1, 3)}, sampler="grid", trials=2).rows) == 2


# What a trial is worth


def by_hand(config, split):
    """The folds of a split, each with a classifier trained on it."""
    digits = mf.data.load("digits")
    generalized = config.task == "gzsl"
    rows = digits.split(split, generalized=generalized).train
    images, labels = digits.features[rows], digits.labels[rows]
    generator = config.generator("class folds")
    for fold in class_folds(labels, 3, generalized=generalized, generator=generator):
        own = fold.classes[fold.held_out]
        classifier = mf.MCFAClassifier(config).fit(
            images[fold.train],
            fold.labels[fold.train],
            digits.semantics[fold.classes],
        )
        assert not np.isin(labels[fold.train], own).any()
        yield fold, classifier, images


def test_value_is_the_mean_accuracy_among_held_out_classes(tmp_path, in_process):
    splits, seeds = ("7/3:0", "7/3:2"), (0, 7)
    result = run(tmp_path, {"epochs": Choice((2,))}, splits=splits, seeds=seeds)
    means = {}
    for split in splits:
        accuracies = []
        for seed in seeds:
            config = result.best.replace(seed=seed)
            for fold, classifier, images in by_hand(config, split):
                predicted = classifier.predict(images[fold.test_unseen])
                accuracies.append(mean_class_accuracy(fold.labels[fold.test_unseen], predicted))
        means[split] = np.mean(accuracies)
    (row,) = result.rows
    assert row.splits == pytest.approx(means)
    assert row.value == pytest.approx(np.mean(list(means.values())))
    assert row.calibrations == {}


@pytest.mark.parametrize("method", ["softmax", "nearest", "ensemble"])
def test_generalized_value_is_the_harmonic_mean_at_one_calibration(method, tmp_path, in_process):
    options = {**SMALL, "seen_latents": 50}
    result = run(tmp_path, {"epochs": Choice((2,))}, fixed=options, task="gzsl", method=method)
    (row,) = result.rows
    runs = list(by_hand(result.best, "7/3:0"))

    def harmonic(calibration):
        means = []
        for fold, classifier, images in runs:
            classifier.set_params(method=method, calibration=calibration)
            parts = (fold.test_seen, fold.test_unseen)
            predictions = [classifier.predict(images[rows]) for rows in parts]
            means.append(
                harmonic_mean(
                    *(
                        mean_class_accuracy(fold.labels[rows], predicted)
                        for rows, predicted in zip(parts, predictions, strict=True)
                    )
                )
            )
        return np.mean(means)

    assert row.value == pytest.approx(harmonic(row.calibrations["7/3:0"]))
    assert row.value > 0
    assert row.value >= max(harmonic(c) for c in np.linspace(-2, 2, 41)) - 1e-9


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_test_rows_and_unseen_descriptors_do_not_matter(task, tmp_path, in_process):
    digits, rng = mf.data.load("digits"), np.random.default_rng(0)
    split = digits.split("7/3:0", generalized=True)
    rows = Rows(split.train, split.test_unseen, split.test_seen)
    splits = RowSplits({"one": rows._replace(test_seen=rows.test_seen[:0])}, {"one": rows})
    honest = replace(digits, splits=splits)
    features, labels = digits.features.copy(), digits.labels.copy()
    semantics = digits.semantics.copy()
    for part in (split.test_seen, split.test_unseen):
        labels[part] = rng.choice(np.unique(labels[part]), len(part))
        features[part] = rng.normal(size=features[part].shape)
    semantics[split.unseen_classes] = rng.normal(size=(3, semantics.shape[1]))
    garbage = replace(honest, features=features, labels=labels, semantics=semantics)
    results = []
    for name, dataset in (("honest", honest), ("garbage", garbage)):
        folder = save_folder(dataset, tmp_path / name / "data")
        fixed = {**SMALL, "seen_latents": 50 if task == "gzsl" else 0}
        out = tmp_path / name / "out"
        results.append(run(out, data=str(folder), fixed=fixed, splits=["one"], task=task))
    one, other = results
    assert outcome(one.rows) == outcome(other.rows) and one.best == other.best
    assert len({row.value for row in one.rows}) > 1


def test_reference_mode_does_not_select_on_test_rows(tmp_path, script):
    script(lambda job: 0.5)
    result = run(tmp_path, mode="reference")
    assert result.best.mode == "reference" and result.best.positives in ("in", "out")
    assert result.best.selection == "last"
    assert result.best.noise == "row"


# Trials that end early


def test_hopeless_trials_are_pruned(tmp_path, script):
    bad = set(range(6, 12))
    jobs = script(lambda job: 0.1 if job.trial in bad else 0.9 + 0.001 * job.trial)
    result = run(tmp_path, RANGES, trials=12)
    states = [row.state for row in result.rows]
    assert states == ["complete"] * 6 + ["pruned"] * 6
    steps = [job.step for job in jobs if job.trial == 7]
    assert steps == [0, 1]  # of three
    assert result.rows[7].value is None and result.rows[7].note == "below the median"
    kept = run(tmp_path / "kept", RANGES, trials=12, prune=False)
    assert {row.state for row in kept.rows} == {"complete"}


def test_trouble_of_one_trial_leaves_the_others(tmp_path, script):
    def trouble(job):
        if job.trial == 1:
            return "Traceback: no good"
        if job.trial == 2 and job.step == 1:
            return None  # diverged
        if job.trial == 3 and job.step == 2:
            return WORKER_DIED
        return 0.1 * job.trial

    script(trouble)
    told = []
    result = run(tmp_path, on_progress=told.append)
    states = ["complete", "failed", "pruned", "unfinished", "complete", "complete"]
    assert [row.state for row in result.rows] == states
    assert result.rows[1].note == "Traceback: no good"
    assert result.rows[2].note == "training diverged"
    assert [state.failure for state in told if state.failure] == [
        "Traceback: no good",
        WORKER_DIED,
    ]
    assert told[-1].trials == 5 and told[-1].of_trials == 6 and told[-1].best.number == 5
    # What failed or diverged does so again; what was lost is run again.
    jobs = script(lambda job: 0.25)
    again = run(tmp_path)
    assert {job.trial for job in jobs} == {3} and again.rows[3].state == "complete"
    assert [r for r in again.rows if r.number != 3] == [r for r in result.rows if r.number != 3]


def test_results_may_come_in_any_order(tmp_path, monkeypatch):
    def backwards(source, work, *, workers):
        for batch in iter(lambda: list(islice(source, 3)), []):
            for job in reversed(batch):
                error = "Traceback: no good" if job.trial == 2 and job.step == 1 else None
                yield Finished(job, 0.1 * (job.step + job.trial), error, 0.25)

    monkeypatch.setattr(module, "in_workers", backwards)
    told = []
    result = run(tmp_path, on_progress=told.append)
    states = ["complete", "complete", "failed", "complete", "complete", "complete"]
    assert [row.state for row in result.rows] == states
    assert [row.value for row in result.rows if row.value is not None] == pytest.approx(
        [0.1, 0.2, 0.4, 0.5, 0.6]
    )
    assert [state.trainings for state in told[:3]] == [1, 2, 3]
    assert [state.failure for state in told if state.failure] == ["Traceback: no good"]


def test_no_trial_begins_after_the_timeout(tmp_path, script):
    jobs = script(lambda job: 0.5)
    assert run(tmp_path, timeout=0).rows == [] and jobs == []
    assert not (tmp_path / "best.json").exists()
    assert len(run(tmp_path, timeout=600).rows) == 6


# What survives


def test_more_trials_go_on_from_those_before(tmp_path, script):
    script(lambda job: job.options["learning_rate"])
    few = run(tmp_path / "grown", RANGES, trials=12, prune=False)
    jobs = script(lambda job: job.options["learning_rate"])
    grown = run(tmp_path / "grown", RANGES, trials=20, prune=False)
    assert min(job.trial for job in jobs) == 12
    assert grown.rows[:12] == few.rows
    assert run(tmp_path / "whole", RANGES, trials=20, prune=False).rows == grown.rows


def open_journal(path, **options):
    settings = {"points": None, "sampler": "tpe", "sampler_seed": 0, "prune": False, **options}
    return Journal(path, RANGES, **settings)


@pytest.mark.parametrize("points", [None, [{"learning_rate": 1e-3, "epochs": e} for e in (2, 3)]])
def test_a_trial_that_was_left_is_run_again_with_the_same_options(points, tmp_path):
    path = tmp_path / "journal"
    first = open_journal(path, points=points).begin()
    journal = open_journal(path, points=points)
    (again,) = journal.unfinished()
    assert (again.number, again.params) == (first.number, first.params)
    journal.report(again, 0.5, 0)
    reopened = open_journal(path, points=points)
    (third,) = reopened.unfinished()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reopened.report(third, 0.5, 0)
    reopened.end(third, "complete", 0.5)
    assert list(open_journal(path, points=points).unfinished()) == []
    assert open_journal(path, points=points).begin().number == 1


def test_a_point_that_was_only_queued_is_taken_once(tmp_path):
    points = [{"learning_rate": 1e-3, "epochs": e} for e in (2, 3)]
    path = tmp_path / "journal"
    open_journal(path, points=points).study.enqueue_trial(points[0])
    journal = open_journal(path, points=points)
    assert journal.trials == []
    assert [journal.begin().params for _ in points] == points


def test_a_line_that_was_cut_off_is_no_damage(tmp_path, script):
    script(lambda job: 0.5)
    wanted = run(tmp_path)
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 9, "wor')
    assert run(tmp_path).rows == wanted.rows
    assert path.read_bytes().startswith(whole + b'{"op_code":')
    assert run(tmp_path).rows == wanted.rows
    path.write_bytes(whole[:50] + b"\n" + whole[50:])
    with pytest.raises(CheckpointError, match="journal.log: damaged"):
        run(tmp_path)


def test_a_folder_is_for_one_sweep_at_a_time(tmp_path, script):
    refused = []

    def second(state):
        with pytest.raises(ValueError, match="another sweep is running in this folder"):
            run(tmp_path)
        refused.append(state)

    script(lambda job: 0.5)
    run(tmp_path, on_progress=second, trials=1)
    assert refused


@pytest.mark.parametrize(("mode", "method"), [("paper", "softmax"), ("best", "nearest")])
def test_the_classifier_judged_by_is_that_of_the_preset(mode, method, tmp_path, script):
    script(lambda job: 0.5)
    run(tmp_path, {"epochs": Choice((1,))}, mode=mode)
    assert json.loads((tmp_path / "sweep.json").read_text())["method"] == method


@pytest.mark.parametrize(
    "options",
    [
        {"search": {"epochs": Range(1, 3)}},
        {"seeds": (1,)},
        {"splits": ["7/3:1"]},
        {"fixed": {**SMALL, "kl_weight": 2.0}},
        {"method": "nearest"},
        {"sampler_seed": 1},
    ],
)
def test_a_folder_is_for_one_sweep_only(options, tmp_path, script):
    script(lambda job: 0.5)
    run(tmp_path, sampler="grid", trials=1)
    with pytest.raises(ValueError, match="belongs to a different run"):
        run(tmp_path, **{"sampler": "grid", "trials": 1, **options})


# Slow enough to be killed between the beginning and the end of a trial.
KILLED = {
    "tpe": {"search": {**RANGES, "epochs": Range(20, 40)}, "trials": 8, "prune": False},
    "grid": {"search": {**GRID, "epochs": Range(30, 33)}, "jobs": 2, "sampler": "grid"},
}


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_sweep_resumes_without_repeating_trials(kind, tmp_path, in_process):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, __file__, str(out), kind],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    done = b'"state":1,'  # of a complete trial
    path = out / "journal.log"
    while not path.exists() or path.read_bytes().count(done) < 3:
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    before = [line for line in path.read_bytes().splitlines() if done in line]
    assert 3 <= len(before) < 8
    resumed = run(out, **KILLED[kind])
    after = [line for line in path.read_bytes().splitlines() if done in line]
    assert after[: len(before)] == before and len(after) == 8
    finished = [json.loads(line)["trial_id"] for line in after]
    assert len(set(finished)) == 8
    whole = run(tmp_path / "whole", **{**KILLED[kind], "jobs": 1})
    assert outcome(resumed.rows) == outcome(whole.rows)
    assert {row.state for row in whole.rows} == {"complete"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_killed_between_two_parameters_gets_the_same_ones(sampler, tmp_path, monkeypatch):
    def journal(name):
        options = {"points": None, "sampler": sampler, "sampler_seed": 0, "prune": False}
        return Journal(tmp_path / name, {"a": Range(0.0, 1.0), "b": Range(1, 1000)}, **options)

    wanted = journal("whole").begin().params
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.trial.Trial, "suggest_int", Mock(side_effect=KeyboardInterrupt))
        journal("killed").begin()
    (trial,) = journal("killed").unfinished()
    assert trial.params == wanted and set(wanted) == {"a", "b"}


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": {}}, "search, seeds: expected an option and a seed"),
        ({"search": {"epoch": Range(1, 2)}}, "epoch: no option"),
        ({"search": {"epochs": Range(0, 2)}}, "epochs: .*greater than or equal to 1"),
        (
            {"search": {"latent_features": Range(2, 4)}, "fixed": SMALL},
            "latent_features: .*searched or fixed",
        ),
        ({"fixed": {**SMALL, "epoch": 1}}, "epoch\n.*Extra inputs are not permitted"),
        ({"fixed": {**SMALL, "seed": 1}}, "seed: not to be fixed, it is given by 'seeds'"),
        ({"fixed": {**SMALL, "selection": "test"}, "mode": "reference"}, "looks at test rows"),
        ({"fixed": {}}, "classes_per_batch: expected at most 4.*got 5"),
        ({"mode": "fast"}, "mode: expected one of .*'paper', 'reference'.*got 'fast'"),
        ({"task": "any"}, "task: expected 'zsl' or 'gzsl'"),
        ({"method": "knn"}, "method: expected one of"),
        ({"sampler": "best"}, "sampler: expected one of"),
        ({"search": RANGES, "sampler": "grid", "fixed": {"classes_per_batch": 4}}, "grid needs"),
        ({"seeds": ()}, "search, seeds: expected"),
        ({"folds": 1}, "folds: expected 2 or more, got 1"),
        ({"trials": 0}, "trials: expected 1 or more, got 0"),
        ({"jobs": 0}, "jobs: expected 1 or more, got 0"),
        ({"splits": []}, "splits: expected one or more"),
        ({"splits": ["9/9"]}, "no split '9/9'"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_searched_batches_must_fit_the_folds(tmp_path):
    with pytest.raises(ValueError, match="classes_per_batch: expected at most 4.*got 5"):
        run(tmp_path, {"classes_per_batch": Range(2, 5)})


def test_without_optuna_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mcfa_fast.experiments.journal")
    with pytest.raises(ImportError, match=r"pip install 'mcfa_fast\[tune\]'"):
        run(tmp_path)


if __name__ == "__main__":
    run(Path(sys.argv[1]), **KILLED[sys.argv[2]])
