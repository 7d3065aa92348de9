"""Sweeps: what is tried, what it is worth, and who wins."""

import csv
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
from sweep_runs import GRID, MODULE, PENALTIES, RANGES, outcome, run, train_by_script, train_here

import mcfa_fast as mf
from mcfa_fast.classifiers import RunConfig, ZeroShotClassifier
from mcfa_fast.data.save import save_folder
from mcfa_fast.data.splits import Rows, RowSplits
from mcfa_fast.evaluation import harmonic_mean, mean_class_accuracy
from mcfa_fast.experiments import Choice, Range
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished
from mcfa_fast.experiments.trials import TrialRow, winner
from mcfa_fast.selection import selection_folds

SMALL = {
    "latent_features": 8,
    "visual_hidden": 32,
    "semantic_hidden": 32,
    "instances_per_class": 20,
    "learning_rate": 3e-3,
    "softmax.epochs": 3,
    "softmax.unseen_samples": 50,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def in_process(monkeypatch):
    train_here(monkeypatch)


@pytest.fixture
def script(monkeypatch):
    return partial(train_by_script, monkeypatch)


# What is tried


def test_workers_give_the_grid_once_and_the_same_as_one_process(tmp_path, request):
    options = {"search": PENALTIES, "system": "eszsl"}
    parallel = run(tmp_path / "parallel", jobs=2, **options)
    request.getfixturevalue("in_process")
    alone = run(tmp_path / "alone", **options)
    assert outcome(parallel.rows) == outcome(alone.rows)
    assert parallel.config == alone.config
    points = [tuple(row.options.values()) for row in alone.rows]
    # The preset first, and its point of the grid not a second time.
    others = [(v, s) for v in (1.0, 100.0, 10000.0) for s in (0.01, 1.0) if (v, s) != (1.0, 1.0)]
    assert points == [(1.0, 1.0), *others]
    assert {row.state for row in alone.rows} == {"complete"}
    assert len({row.value for row in alone.rows}) > 1
    again = run(tmp_path / "parallel", on_progress=lambda _: pytest.fail("it trains"), **options)
    assert again.rows == parallel.rows


def test_files_tell_every_trial_and_the_winner(tmp_path, in_process):
    splits = ("7/3:0", "7/3:1")
    result = run(tmp_path, PENALTIES, system="eszsl", splits=splits, seeds=(5, 6))
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert len(rows) == 6
    for row, wanted in zip(rows, result.rows, strict=True):
        assert int(row["trial"]) == wanted.number and row["state"] == "complete"
        assert float(row["value"]) == wanted.value
        assert float(row["standard_error"]) == wanted.error
        assert float(row["visual_penalty"]) == wanted.options["visual_penalty"]
        assert float(row["value"]) == pytest.approx((float(row["7/3:0"]) + float(row["7/3:1"])) / 2)
        assert float(row["seconds"]) == 0.25 * 12  # two splits, two seeds, three folds
    config = RunConfig.model_validate_json((tmp_path / "best.json").read_text())
    options = dict(result.winner.options)
    assert config == result.config
    assert config == RunConfig.of("eszsl", options=options).with_arguments(seed=5)
    assert sorted(result.fold_classes) == [2] * 8 + [3] * 4
    assert set(result.importances) == set(PENALTIES)
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
    assert one.rows[1].options != other.rows[1].options
    assert all(1 <= row.options["epochs"] <= 4 for row in one.rows[1:])
    assert len({row.options["learning_rate"] for row in one.rows}) == 25
    if sampler == "tpe":  # it has learned where the values are high
        values = [row.value for row in one.rows[1:]]
        assert np.mean(values[14:]) > np.mean(values[:10]) + 0.1


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_preset_is_trial_0(sampler, inside, tmp_path, script):
    """Whether or not its values are among those that are searched."""
    jobs = script(lambda job: 0.5)
    high = 60 if inside else 40
    space = {"epochs": Range(10, high, step=10), "positives": Choice(("in", "out"))}
    result = run(tmp_path, space, sampler=sampler, trials=4, fixed={"kl_weight": 0.5})
    assert result.rows[0].options == {"epochs": 50, "positives": "out"} == jobs[0].options
    assert all(row.options["epochs"] in range(10, high + 1, 10) for row in result.rows[1:])
    # All are equally good: the preset stays, and what is fixed holds for it, too.
    assert result.winner is result.rows[0]
    assert result.config == RunConfig.of("mcfa", options={"kl_weight": 0.5})


def test_ranges_with_steps_and_tuples_are_sampled(tmp_path, script):
    space = {
        "alignment_weight": Range(0.1, 0.45, step=0.1),
        "latent_features": Range(2, 9, step=3),
        "kl_warmup": Choice((None, [0, 10])),
        "chunk_size": Choice((None, 64)),
    }
    jobs = script(lambda job: 0.5)
    result = run(tmp_path, space, trials=31, sampler="random", system="cada-vae")
    options = [job.options for job in jobs if job.trial > 0]
    assert {values["latent_features"] for values in options} == {2, 5, 8}
    assert {values["kl_warmup"] for values in options} == {None, (0, 10)}
    assert {values["chunk_size"] for values in options} == {None, 64}
    weights = {values["alignment_weight"] for values in options}
    assert sorted(weights) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert {row["kl_warmup"] for row in rows[1:]} == {"null", "[0, 10]"}
    assert result.importances == {}  # all trials are equally good


def test_choices_alone_are_a_grid_and_a_range_is_sampled(tmp_path, script):
    script(lambda job: 0.5)
    assert len(run(tmp_path / "choices", {"positives": Choice(("in", "out"))}).rows) == 2
    assert len(run(tmp_path / "range", {"epochs": Range(1, 3)}).rows) == 50
    assert len(run(tmp_path / "few", {"epochs": Range(1, 3)}, sampler="grid", trials=2).rows) == 2


def test_options_of_heads_are_searched(tmp_path, in_process):
    space = {"whitening": Choice((0.5,))}
    result = run(tmp_path, space, system="dual-encoder", fixed={"epochs": 1})
    assert [row.options for row in result.rows] == [
        {"nearest.whitening": value} for value in (RunConfig.of().names["nearest.whitening"], 0.5)
    ]
    assert result.rows[0].value != result.rows[1].value


# What a trial is worth


def by_hand(config, split):
    """The folds of a split, each with a classifier trained on it."""
    digits = mf.data.load("digits")
    generalized = config.task == "gzsl"
    rows = digits.split(split, generalized=generalized).train
    images, labels = digits.features[rows], digits.labels[rows]
    for fold in selection_folds(labels, 3, generalized=generalized, seed=config.options.seed):
        own = fold.classes[fold.held_out]
        classifier = ZeroShotClassifier(config, options={"selection": "none"})
        classifier.fit(
            images[fold.train], fold.labels[fold.train], digits.semantics[fold.classes]
        )
        assert not np.isin(labels[fold.train], own).any()
        yield fold, classifier, images


def test_value_is_the_mean_accuracy_among_held_out_classes(tmp_path, in_process):
    splits, seeds = ("7/3:0", "7/3:2"), (0, 7)
    space = {"visual_penalty": Choice((1.0,))}
    result = run(tmp_path, space, splits=splits, seeds=seeds, system="eszsl")
    means, every = {}, []
    for split in splits:
        accuracies = []
        for seed in seeds:
            for fold, classifier, images in by_hand(result.config.with_arguments(seed=seed), split):
                predicted = classifier.predict(images[fold.test_unseen])
                accuracies.append(mean_class_accuracy(fold.labels[fold.test_unseen], predicted))
        means[split] = np.mean(accuracies)
        every += accuracies
    (row,) = result.rows
    assert row.splits == pytest.approx(means)
    assert row.value == pytest.approx(np.mean(list(means.values())))
    assert row.error == pytest.approx(np.std(every, ddof=1) / np.sqrt(12))
    assert row.calibrations == {}


@pytest.mark.parametrize("head", ["softmax", "nearest", "ensemble"])
def test_generalized_value_is_the_harmonic_mean_at_one_calibration(head, tmp_path, in_process):
    options = {**SMALL, "classes_per_batch": 4, "softmax.seen_samples": 50}
    space = {"epochs": Choice((2,))}
    result = run(tmp_path, space, fixed=options, task="gzsl", head=head)
    row = result.rows[1]
    runs = list(by_hand(result.config.replace({"epochs": 2}), "7/3:0"))

    def harmonics(calibration):
        means = []
        for fold, classifier, images in runs:
            assert classifier.head_.name == head
            classifier.set_params(calibration=calibration * classifier.head_.calibration_unit)
            parts = (fold.test_seen, fold.test_unseen)
            predictions = [classifier.predict(images[rows]) for rows in parts]
            accuracies = (
                mean_class_accuracy(fold.labels[rows], predicted)
                for rows, predicted in zip(parts, predictions, strict=True)
            )
            means.append(harmonic_mean(*accuracies))
        return means

    reached = harmonics(row.calibrations["7/3:0"])
    assert row.value == pytest.approx(np.mean(reached))
    assert sorted(row.folds) == pytest.approx(sorted(reached))
    assert row.value > 0
    assert row.value >= max(np.mean(harmonics(c)) for c in np.linspace(-2, 2, 41)) - 1e-9


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
        (tmp_path / name).mkdir()
        folder = save_folder(dataset, tmp_path / name / "data")
        options = {"data": str(folder), "splits": ["one"], "task": task}
        results.append(run(tmp_path / name / "out", PENALTIES, system="eszsl", **options))
    one, other = results
    assert outcome(one.rows) == outcome(other.rows) and one.config == other.config
    assert len({row.value for row in one.rows}) > 1


def test_reference_presets_do_not_select_on_test_rows(tmp_path, script):
    script(lambda job: 0.5)
    config = run(tmp_path, preset="reference").config
    assert config.preset == "reference" and config.options.noise == "row"
    assert config.selection.rule == "none"


# Who wins


def trial(number, folds, state="complete"):
    value = float(np.mean(folds)) if state == "complete" else None
    return TrialRow(number, state, value, {}, {}, {}, tuple(folds), 1.0, "")


def test_a_challenger_wins_only_when_ahead_by_more_than_its_standard_error():
    preset = trial(0, [0.5, 0.6, 0.7])
    error = 0.1 / np.sqrt(3)
    assert trial(1, [0.5, 0.6, 0.7]).error == pytest.approx(error)
    for lead, wins in ((-0.1, 0), (0.0, 0), (0.9 * error, 0), (1.1 * error, 1)):
        challenger = trial(1, [0.5 + lead, 0.6 + lead, 0.7 + lead])
        assert winner([preset, challenger]).number == wins
    steady, shaky = trial(1, [0.64, 0.64, 0.64]), trial(2, [0.35, 0.65, 0.95])
    assert winner([preset, steady]).number == 1
    assert winner([preset, steady, shaky]).number == 0  # the best is too shaky


def test_a_preset_that_fails_is_no_opponent():
    others = [trial(1, [0.2, 0.4]), trial(2, [0.3, 0.4])]
    for state in ("failed", "pruned"):
        assert winner([trial(0, [], state), *others]).number == 2
    assert winner([trial(0, [], "unfinished"), *others]) is None
    assert winner([trial(0, [], "failed")]) is None and winner([]) is None


# Trials that end early


def test_hopeless_trials_are_pruned_but_not_the_preset(tmp_path, script):
    bad = {0, *range(6, 12)}
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
    result = run(tmp_path, trials=6, on_progress=told.append)
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
    again = run(tmp_path, trials=6)
    assert {job.trial for job in jobs} == {3} and again.rows[3].state == "complete"
    assert [r for r in again.rows if r.number != 3] == [r for r in result.rows if r.number != 3]


def test_results_may_come_in_any_order(tmp_path, monkeypatch):
    def backwards(source, work, *, workers):
        for batch in iter(lambda: list(islice(source, 3)), []):
            for job in reversed(batch):
                error = "Traceback: no good" if job.trial == 2 and job.step == 1 else None
                yield Finished(job, 0.1 * (job.step + job.trial), error, 0.25)

    monkeypatch.setattr(MODULE, "in_workers", backwards)
    told = []
    result = run(tmp_path, trials=6, on_progress=told.append)
    states = ["complete", "complete", "failed", "complete", "complete", "complete"]
    assert [row.state for row in result.rows] == states
    assert [row.value for row in result.rows if row.value is not None] == pytest.approx(
        [0.1, 0.2, 0.4, 0.5, 0.6]
    )
    assert [state.trainings for state in told[:3]] == [1, 2, 3]
    assert [state.failure for state in told if state.failure] == ["Traceback: no good"]


def test_no_trial_begins_after_the_timeout(tmp_path, script):
    jobs = script(lambda job: 0.5)
    nothing = run(tmp_path, timeout=0)
    assert nothing.rows == [] and jobs == [] and nothing.winner is None
    assert not (tmp_path / "best.json").exists()
    assert len(run(tmp_path, timeout=600).rows) == 7
    assert list(GRID) == list(run(tmp_path).rows[0].options)
