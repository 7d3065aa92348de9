"""Choosing hyperparameters inside the seen classes, against the same done by hand."""

import numpy as np
import pytest
from zero_shot_data import NEW, SEEN, make_images, make_semantics

from mcfa_fast.baselines import Baseline, Ridge
from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.selection.folds import class_folds
from mcfa_fast.evaluation import (
    SeenUnseenCurve,
    best_calibration,
    harmonic_mean,
    seen_unseen_curve,
)
from mcfa_fast.studies import select

IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = make_semantics()[:NEW]
GRID = [{"penalty": p} for p in (1e-3, 0.1, 1.0, 10.0, 1e3)]


pytestmark = pytest.mark.usefixtures("one_thread")


def folds(generalized, seed=0):
    generator = MCFAConfig(seed=seed).generator("class folds")
    return class_folds(LABELS, 3, generalized=generalized, generator=generator)


def refit(fold, setting):
    """A baseline on a fold's training rows, in the numbers of the seen classes themselves."""
    rows = fold.train
    return Ridge(task="gzsl", **setting).fit(IMAGES[rows], LABELS[rows], SEMANTICS[: len(SEEN)])


def test_accuracy_among_held_out_classes_decides():
    chosen = select(Ridge(), GRID, IMAGES, LABELS, SEMANTICS)
    wanted = [
        np.mean(
            [
                refit(fold, setting).score(
                    IMAGES[fold.test_unseen],
                    LABELS[fold.test_unseen],
                    candidates=fold.classes[fold.held_out],
                )
                for fold in folds(False)
            ]
        )
        for setting in GRID
    ]
    assert chosen.scores == pytest.approx(wanted)
    assert len(set(wanted)) > 1
    assert chosen.parameters == GRID[int(np.argmax(wanted))]
    assert chosen.score == max(wanted) and chosen.calibration is None


def test_harmonic_mean_with_the_best_calibration_decides():
    chosen = select(Ridge(task="gzsl"), GRID, IMAGES, LABELS, SEMANTICS)

    def harmonic(scored, calibration):
        scores, fold = scored
        stacked = scores - calibration * ~np.isin(np.arange(len(SEEN)), fold.held_out)
        predictions = stacked.argmax(axis=1)
        accuracies = []
        for rows in (fold.test_seen, fold.test_unseen):
            hits, labels = predictions[rows] == LABELS[rows], LABELS[rows]
            accuracies.append(np.mean([hits[labels == c].mean() for c in np.unique(labels)]))
        return harmonic_mean(*accuracies)

    sample = np.logspace(-6, 0, 61)
    for setting, score in zip(GRID, chosen.scores, strict=True):
        scored = [(refit(fold, setting).decision_function(IMAGES), fold) for fold in folds(True)]
        means = [np.mean([harmonic(one, c) for one in scored]) for c in [0, *sample, *-sample]]
        # A sample of calibrations misses the exact best, but not by much.
        assert score - 0.1 < max(means) <= score + 1e-9
        if setting == chosen.parameters:
            assert score == chosen.score == max(chosen.scores)
            exact = np.mean([harmonic(one, chosen.calibration) for one in scored])
            assert exact == pytest.approx(score)


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
    one, same, other = (
        select(Ridge(task=task), GRID, IMAGES, LABELS, SEMANTICS, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same and one.scores != other.scores


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_descriptors_of_unseen_classes_are_not_used(task):
    other = SEMANTICS.copy()
    other[len(SEEN) :] = 1e6
    wanted = select(Ridge(task=task), GRID, IMAGES, LABELS, SEMANTICS)
    assert select(Ridge(task=task), GRID, IMAGES, LABELS, other) == wanted


class Fragile(Baseline):
    """Scores that are not finite below a threshold, and useless above it."""

    method = "fragile"

    def __init__(self, *, threshold=0.0, task="zsl", calibration=None):
        self.threshold = threshold
        self.task = task
        self.calibration = calibration

    def _fit(self, data):
        self.value_ = np.nan if self.threshold < 1 else 0.0

    def _scores(self, x, s):
        return np.full((len(x), len(s)), self.value_)


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_settings_without_finite_scores_are_not_chosen(task):
    grid = [{"threshold": t} for t in (0, 1, 2)]
    chosen = select(Fragile(task=task), grid, IMAGES, LABELS, SEMANTICS)
    assert chosen.parameters == {"threshold": 1}  # the first of equals
    assert chosen.scores[0] == -1
    with pytest.raises(ValueError, match="grid: no setting of fragile gave finite scores"):
        select(Fragile(task=task), grid[:1], IMAGES, LABELS, SEMANTICS)


def test_the_baseline_given_stays_as_it_is():
    baseline = Ridge(penalty=7.0)
    select(baseline, GRID, IMAGES, LABELS, SEMANTICS)
    assert baseline.penalty == 7.0 and not hasattr(baseline, "weights_")


def test_three_seen_classes_are_too_few():
    rows = LABELS < 3
    with pytest.raises(ValueError, match="expected 4 or more seen classes.*got 3"):
        select(Ridge(), GRID, IMAGES[rows], LABELS[rows], SEMANTICS)
