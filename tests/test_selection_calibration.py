"""Calibrations and the ensemble's weight, against a search over many of them."""

import numpy as np
import pytest

from mcfa_fast.evaluation import harmonic_mean
from mcfa_fast.selection import HeldOutScores, Selection, calibrate
from mcfa_fast.selection.folds import class_folds
from mcfa_fast.storage import random_stream

CLASSES = 8
LABELS = np.repeat(np.arange(CLASSES), 25)
SHARPNESS = 5.0


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def held_out(generalized, *, noise=1.0, distance=1.0, seed=0, ensemble=True):
    """Folds with random scores in which the right class is somewhat higher.

    `noise` is that of the softmax head, `distance` of the nearest class; seen classes are at an
    advantage, which a calibration takes from them.
    """
    rng = np.random.default_rng(seed)
    folds = class_folds(LABELS, 2, generalized=generalized, generator=random_stream(seed, "f"))
    return [scores_of(fold, rng, noise, distance, ensemble) for fold in folds]


def scores_of(fold, rng, noise, distance, ensemble):
    right = fold.labels[fold.test][:, None] == fold.candidates
    advantage = 1.0 * ~np.isin(fold.candidates, fold.held_out)
    softmax = log_softmax(noise * rng.normal(size=right.shape) + 1.5 * right + advantage)
    nearest = 0.2 * (distance * rng.normal(size=right.shape) + right + advantage)
    scores, units, weighted = {"softmax": softmax, "nearest": nearest}, {}, None
    if ensemble:

        def weighted(weight):
            return log_softmax((1 - weight) * softmax + weight * SHARPNESS * nearest)

        scores["ensemble"] = weighted(0.5)
        units = {"ensemble": SHARPNESS}
    return HeldOutScores(fold, scores, {"softmax": 1.0, "nearest": 1.0, **units}, weighted)


def quality(folds, scores, calibration=0.0):
    """The mean over the folds of the accuracy, or of the harmonic mean, written plainly."""
    values = []
    for one, given in zip(folds, scores, strict=True):
        fold = one.fold
        stacked = given - calibration * ~np.isin(fold.candidates, fold.held_out)
        hits = fold.candidates[stacked.argmax(axis=1)] == fold.labels[fold.test]
        labels = fold.labels[fold.test]
        accuracy = {c: hits[labels == c].mean() for c in np.unique(labels)}
        unseen = np.mean([accuracy[c] for c in fold.held_out])
        seen = [accuracy[c] for c in accuracy if c not in fold.held_out]
        values.append(harmonic_mean(np.mean(seen), unseen) if fold.generalized else unseen)
    return np.mean(values)


@pytest.mark.parametrize("head", ["softmax", "nearest", "ensemble"])
def test_one_calibration_is_the_best_for_all_folds_together(head):
    folds = held_out(True)
    chosen = calibrate(folds, head)
    weight = chosen.weight
    scores = [one.weighted(weight) if head == "ensemble" else one.scores[head] for one in folds]
    unit = SHARPNESS if head == "ensemble" else 1.0
    reached = quality(folds, scores, chosen.calibration[head] * unit)
    assert chosen.score == pytest.approx(reached)
    others = [quality(folds, scores, c * unit) for c in np.linspace(-3, 3, 241)]
    assert max(others) - 1e-9 <= reached <= max(others) + 0.02
    assert min(others) < reached and chosen.calibration[head] > 0


def test_conventional_folds_need_no_calibration():
    folds = held_out(False)
    chosen = calibrate(folds, "nearest")
    assert chosen.calibration == {}
    assert chosen.score == pytest.approx(quality(folds, [one.scores["nearest"] for one in folds]))
    assert chosen.held_out == tuple(len(one.fold.held_out) for one in folds) == (4, 4)
    assert set(chosen.rejection) == {"softmax", "nearest", "ensemble"}


@pytest.mark.parametrize("generalized", [False, True])
def test_chosen_weight_is_the_best_of_all(generalized):
    folds = held_out(generalized)
    chosen = calibrate(folds, "ensemble").weight

    def best(weight):
        scores = [one.weighted(weight) for one in folds]
        if not generalized:
            return quality(folds, scores)
        return max(quality(folds, scores, c) for c in np.linspace(-6, 12, 241))

    assert 0 < chosen < 1  # both are noisy, independently
    assert best(chosen) >= max(best(weight) for weight in np.linspace(0, 1, 11)) - 0.02


def test_useless_heads_get_no_weight():
    assert calibrate(held_out(False, distance=50.0), "ensemble").weight == 0.0
    assert calibrate(held_out(False, noise=50.0), "ensemble").weight == 1.0


def test_of_equal_weights_the_nearest_to_the_default_is_taken():
    folds = held_out(False)
    same = [
        HeldOutScores(one.fold, one.scores, one.units, lambda _, one=one: one.scores["softmax"])
        for one in folds
    ]
    assert calibrate(same, "ensemble").weight == 0.5
    assert calibrate(same, "ensemble", weight=0.2).weight == 0.2


def test_without_an_ensemble_there_is_no_weight():
    chosen = calibrate(held_out(True, ensemble=False), "nearest")
    assert chosen.weight is None and set(chosen.calibration) == {"softmax", "nearest"}


def test_scores_that_are_not_finite_are_named():
    folds = held_out(True, ensemble=False)
    folds[1].scores["nearest"][3, 1] = np.nan
    with pytest.raises(ValueError, match="nearest: its scores are not finite on a fold"):
        calibrate(folds, "softmax")


def test_a_selection_is_kept_as_plain_values():
    chosen = calibrate(held_out(True), "ensemble", log_probabilities=("softmax", "ensemble"))
    assert Selection.from_dict(chosen.to_dict()) == chosen
