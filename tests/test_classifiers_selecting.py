"""What selection does for a run: on folds of the seen classes, kept in the run's folder."""

import json

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import ZeroShotClassifier, selecting
from mcfa_fast.classifiers.selecting import select
from mcfa_fast.data.inputs import training_data
from mcfa_fast.evaluation import harmonic_mean, mean_class_accuracy
from mcfa_fast.selection import selection_folds
from mcfa_fast.storage import CheckpointError

HEADS = ("softmax", "nearest", "ensemble")
IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = torch.tensor(make_semantics()[:NEW])

pytestmark = pytest.mark.usefixtures("one_thread")


def run_of(task="gzsl", *, head=None, rule="calibration", **options):
    options = {"epochs": 20, "softmax.epochs": 3, **options}
    return config(task, head=head, selection=rule, **options)


def selected(run, *, features=IMAGES, semantics=SEMANTICS, **options):
    return select(run, training_data(features, LABELS, semantics, None, None), **options)


def fit(run, run_dir=None, **arguments):
    classifier = ZeroShotClassifier(run, run_dir=run_dir)
    return classifier.fit(IMAGES, LABELS, SEMANTICS, **arguments)


@pytest.fixture
def trained(monkeypatch):
    """Numbers of rows that systems are trained on for selection, one entry a training."""
    sizes = []
    original = selecting.fit_path

    def fit_path(system, configs, data, **options):
        sizes.append(len(data.features))
        return original(system, configs, data, **options)

    monkeypatch.setattr(selecting, "fit_path", fit_path)
    return sizes


@pytest.mark.parametrize("head", HEADS)
def test_one_calibration_maximises_the_mean_harmonic_mean_of_the_folds(head):
    run, chosen = selected(run_of(head=head))
    assert sum(chosen.held_out) == len(SEEN), "every class once"
    assert set(chosen.calibration) == set(HEADS)
    tested = []
    for fold in selection_folds(LABELS, 3, generalized=True, seed=0):
        plain = ZeroShotClassifier(run.replace({"selection": "none"}), weight=chosen.weight)
        plain.fit(IMAGES[fold.train], fold.labels[fold.train], SEMANTICS[fold.classes])
        parts = [(IMAGES[rows], fold.labels[rows]) for rows in (fold.test_seen, fold.test_unseen)]
        tested.append((plain, plain.head_.calibration_unit, parts))

    def mean_harmonic(calibration):
        return np.mean(
            [
                harmonic_mean(
                    *(
                        mean_class_accuracy(
                            labels,
                            plain.set_params(calibration=calibration * unit).predict(images),
                        )
                        for images, labels in parts
                    )
                )
                for plain, unit, parts in tested
            ]
        )

    reached = mean_harmonic(chosen.calibration[head])
    assert chosen.score == pytest.approx(reached)
    others = [mean_harmonic(calibration) for calibration in np.linspace(-0.5, 0.5, 41)]
    assert reached >= max(others) - 1e-9 and max(others) > min(others)


def test_the_classifier_uses_what_was_chosen_and_keeps_the_last_epoch(tmp_path):
    chosen, last = fit(run_of()), fit(run_of(rule="none"))
    assert last.selection_ is None
    for head in HEADS:
        one, other = (
            c.with_head(head).set_params(weight=chosen.selection_.weight) for c in (chosen, last)
        )
        unit = chosen.heads_["ensemble"].sharpness if head == "ensemble" else 1
        calibration = chosen.selection_.calibration[head] * unit
        assert one.effective_calibration == calibration and other.effective_calibration == 0
        plain = other.decision_function(IMAGES, calibration=calibration)
        assert np.array_equal(one.decision_function(IMAGES), plain)
    assert chosen.set_params(calibration=0.0).effective_calibration == 0
    chosen.set_params(calibration=None).save(tmp_path / "classifier.pt")
    loaded = ZeroShotClassifier.load(tmp_path / "classifier.pt")
    assert loaded.selection_ == chosen.selection_
    assert loaded.effective_calibration == chosen.effective_calibration


@pytest.mark.parametrize("rule", ["calibration", "grid"])
@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_descriptors_of_unseen_classes_are_not_looked_at(task, rule):
    garbage = SEMANTICS.clone()
    garbage[len(SEEN) :] = 1e3
    run = run_of(task, head="nearest", rule=rule)
    assert selected(run) == selected(run, semantics=garbage)


@pytest.mark.parametrize("rule", ["none", "test"])
def test_rules_that_choose_nothing_on_folds_train_nothing(rule, trained):
    run = run_of(rule="none")
    if rule == "test":
        run = type(run)(**{**dict(run), "preset": "reference"}).replace({"selection": rule})
    assert selected(run) == (run, None)
    assert trained == []


def test_too_few_classes():
    few = LABELS < 3
    data = training_data(IMAGES[few], LABELS[few], SEMANTICS, None, None)
    with pytest.raises(ValueError, match="expected 4 or more seen classes"):
        select(run_of(), data)


def test_episodes_have_no_more_classes_than_a_fold(trained):
    run = run_of("zsl", classes_per_batch=10)
    _, chosen = selected(run)
    assert len(chosen.held_out) == len(trained) == 3


def test_a_diverging_training_says_so():
    with pytest.raises(FloatingPointError, match="diverged on a fold; try a lower learning_rate"):
        selected(run_of("zsl", learning_rate=1e4, latent_features=4))


# The grid


def test_grid_takes_the_setting_of_highest_score_and_leaves_fixed_options_alone(trained):
    run, chosen = selected(run_of("zsl", head="nearest", rule="grid", epochs=25))
    assert run.options.training.epochs == chosen.setting["epochs"] in (10, 20, 25)
    assert len(trained) == 6, "epochs go on from one another; then all heads' scores"
    best = {}
    for epochs in (10, 20, 25):
        _, one = selected(run_of("zsl", head="nearest", epochs=epochs))
        best[epochs] = one.score
    assert chosen.score == max(best.values()) == best[chosen.setting["epochs"]]
    fixed, nothing = selected(
        run_of("zsl", head="nearest", rule="grid", epochs=25), fixed={"epochs": 25}
    )
    assert nothing.setting == {} and fixed.options.training.epochs == 25


def test_options_that_are_given_are_fixed():
    options = {"visual_penalty": 7.0, "selection": "grid"}
    classifier = ZeroShotClassifier("eszsl", options=options).fit(IMAGES, LABELS, SEMANTICS)
    assert classifier.run_.options.visual_penalty == 7.0
    assert set(classifier.selection_.setting) == {"semantic_penalty"}


# The folder of a run


def test_the_choice_is_kept_and_not_made_again(tmp_path, trained):
    wanted = selected(run_of())
    assert selected(run_of(), run_dir=tmp_path) == wanted
    trained.clear()
    assert selected(run_of(), run_dir=tmp_path) == wanted
    assert trained == []


@pytest.mark.parametrize(
    "change",
    [
        {"run": run_of(**{"softmax.epochs": 4})},
        {"run": run_of(rule="grid")},
        {"run": run_of(**{"selection.folds": 4})},
        {"features": IMAGES + 1},
        {"semantics": SEMANTICS + 1},
    ],
)
def test_a_choice_for_something_else_is_made_anew(change, tmp_path, trained):
    selected(run_of(), run_dir=tmp_path)
    trained.clear()
    arguments = {"run": run_of(), **change}
    assert selected(**arguments, run_dir=tmp_path) == selected(**arguments)
    assert len(trained) > 0
    trained.clear()
    selected(**arguments, run_dir=tmp_path)
    assert trained == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: None,
        lambda content: [],
        lambda content: {"selection": content["selection"]},
        lambda content: {**content, "selection": {"score": 1}},
        lambda content: {**content, "selection": {**content["selection"], "rejection": {"a": 1}}},
    ],
)
def test_a_damaged_choice_is_named(damage, tmp_path):
    selected(run_of("zsl", head="nearest", epochs=1), run_dir=tmp_path)
    path = tmp_path / "selection.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=r"selection\.json: damaged; delete it to choose"):
        selected(run_of("zsl", head="nearest", epochs=1), run_dir=tmp_path)


def test_other_head_options_refit_the_heads_without_training(tmp_path):
    first = fit(run_of(rule="none"), tmp_path)
    metrics = (tmp_path / "metrics.csv").read_bytes()
    checkpoint = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    other = fit(run_of(rule="none", whitening=0.5, **{"softmax.epochs": 9}), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == metrics
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == checkpoint
    for name, value in first.system_.state_dict().items():
        assert torch.equal(value, other.system_.state_dict()[name])
    fresh = fit(run_of(rule="none", whitening=0.5, **{"softmax.epochs": 9}))
    for head in HEADS:
        scores = [one.with_head(head).decision_function(IMAGES) for one in (other, fresh, first)]
        assert np.array_equal(*scores[:2])
        assert not np.array_equal(*scores[1:])
    # So does another choice.
    calibrated = fit(run_of(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == metrics
    assert calibrated.selection_ is not None
    assert json.loads((tmp_path / "selection.json").read_text())["selection"]["weight"] is not None
