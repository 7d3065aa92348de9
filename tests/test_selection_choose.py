"""Choosing a setting inside the seen classes, against the same done by hand."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, make_images, make_semantics

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.classifiers.selecting import fold_scores, select
from mcfa_fast.data.inputs import training_data
from mcfa_fast.evaluation import (
    SeenUnseenCurve,
    best_calibration,
    harmonic_mean,
    seen_unseen_curve,
)
from mcfa_fast.selection import choose, selection_folds
from mcfa_fast.systems.ridge import RidgeConfig
from mcfa_fast.systems.trainer import Trainer

IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = make_semantics()[:NEW]
GRID = [{"penalty": p} for p in (1e-3, 0.1, 1.0, 10.0, 1e3)]

pytestmark = pytest.mark.usefixtures("one_thread")


def folds(generalized, seed=0):
    return selection_folds(LABELS, 3, generalized=generalized, seed=seed)


def chosen(task="zsl", semantics=SEMANTICS, seed=0, grid=GRID):
    run = RunConfig.of("ridge", task=task)
    data = training_data(IMAGES, LABELS, semantics, None, None)
    return choose(
        grid,
        folds(task == "gzsl", seed),
        lambda fold: fold_scores(run, data, fold, grid, "cpu"),
    )


def refit(fold, setting):
    """Scores [n, S] of all images by a system that is trained on a fold's training rows alone."""
    rows, semantics = fold.train, SEMANTICS[: len(SEEN)]
    system = Trainer(RidgeConfig(**setting), IMAGES[rows], LABELS[rows], semantics).fit()
    return system.scores(torch.from_numpy(IMAGES), torch.from_numpy(semantics)).numpy()


def accuracy(predictions, rows):
    hits, labels = predictions[rows] == LABELS[rows], LABELS[rows]
    return np.mean([hits[labels == c].mean() for c in np.unique(labels)])


def test_accuracy_among_held_out_classes_decides():
    found = chosen()

    def score(fold, setting):
        held_out = fold.classes[fold.held_out]
        predictions = held_out[refit(fold, setting)[:, held_out].argmax(axis=1)]
        return accuracy(predictions, fold.test_unseen)

    wanted = [np.mean([score(fold, setting) for fold in folds(False)]) for setting in GRID]
    assert found.scores == pytest.approx(wanted)
    assert len(set(wanted)) > 1
    assert found.setting == GRID[int(np.argmax(wanted))]
    assert found.score == pytest.approx(max(wanted))


def test_harmonic_mean_with_the_best_calibration_decides():
    found = chosen("gzsl")

    def harmonic(scored, calibration):
        scores, fold = scored
        stacked = scores - calibration * ~np.isin(np.arange(len(SEEN)), fold.held_out)
        predictions = stacked.argmax(axis=1)
        return harmonic_mean(
            *(accuracy(predictions, rows) for rows in (fold.test_seen, fold.test_unseen))
        )

    sample = np.logspace(-6, 0, 61)
    for setting, score in zip(GRID, found.scores, strict=True):
        scored = [(refit(fold, setting), fold) for fold in folds(True)]
        means = [np.mean([harmonic(one, c) for one in scored]) for c in [0, *sample, *-sample]]
        # A sample of calibrations misses the exact best, but not by much.
        assert score - 0.1 < max(means) <= score + 1e-9
        if setting == found.setting:
            assert score == found.score == max(found.scores)


def test_common_calibration_of_random_curves():
    rng = np.random.default_rng(0)
    classes = np.arange(6)
    for _ in range(10):
        curves = []
        for _ in range(3):
            labels = rng.integers(6, size=40)
            scores = rng.normal(size=(40, 6)) + 1.5 * (labels[:, None] == classes)
            curves.append(seen_unseen_curve(scores, labels, classes, classes[:4]))
        calibration, score = best_calibration(curves)
        every = np.concatenate([curve.breakpoints for curve in curves])
        # The mean changes at breakpoints only, and holds from each of them on.
        tried = [np.mean([curve.at(c).harmonic for curve in curves]) for c in [-99, *every]]
        assert score == pytest.approx(max(tried))
        assert np.mean([curve.at(calibration).harmonic for curve in curves]) == pytest.approx(score)
        assert best_calibration(curves[:1]) == pytest.approx(
            (curves[0].best().calibration, curves[0].best().harmonic)
        )


def test_hopeless_curves_have_calibration_0():
    curve = SeenUnseenCurve(np.array([1.0]), np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    assert best_calibration([curve, curve]) == (0.0, 0.0)


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_seeds_draw_folds(task):
    one, same, other = (chosen(task, seed=seed) for seed in (0, 0, 1))
    assert one == same and one.scores != other.scores


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_descriptors_of_unseen_classes_are_not_used(task):
    other = SEMANTICS.copy()
    other[len(SEEN) :] = 1e6
    assert chosen(task, semantics=other) == chosen(task)


@pytest.mark.parametrize("generalized", [False, True])
def test_settings_without_finite_scores_are_not_chosen(generalized):
    def score_path(fold):
        useless = np.zeros((len(fold.test), len(fold.candidates)))
        useless[0, 0] = 1e-9  # generalized: a curve needs no more
        yield np.full_like(useless, np.nan)
        yield useless
        yield useless
        yield None  # the training diverged

    grid = [{"threshold": t} for t in range(4)]
    found = choose(grid, folds(generalized), score_path)
    assert found.setting == {"threshold": 1}  # the first of equals
    assert found.scores[0] == found.scores[3] == -1
    with pytest.raises(ValueError, match="grid: no setting gave finite scores in every fold"):
        choose(grid[:1], folds(generalized), lambda fold: [None])


def test_a_setting_that_diverges_on_one_fold_is_out():
    parts = folds(False)

    def score_path(fold):
        right = (fold.labels[fold.test][:, None] == fold.candidates).astype(float)
        yield None if fold is parts[1] else right
        yield -right

    assert choose([{"a": 1}, {"a": 2}], parts, score_path).setting == {"a": 2}


def test_three_seen_classes_are_too_few():
    rows = LABELS < 3
    data = training_data(IMAGES[rows], LABELS[rows], SEMANTICS, None, None)
    with pytest.raises(ValueError, match="expected 4 or more seen classes.*got 3"):
        select(RunConfig.of("ridge").replace({"selection": "grid"}), data)
