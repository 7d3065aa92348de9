"""Scores below which images are taken for none of the classes, against the same done row by row."""

import numpy as np
import pytest

from mcfa_fast.selection.rejection import Rejection, rejection_of


def held_out(rows, classes=4, seed=0):
    """Random scores of a fold in which the right class is somewhat higher, with their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels


@pytest.mark.parametrize("log_probabilities", [False, True])
def test_known_rows_are_rejected_at_the_rate(log_probabilities):
    scores, labels = held_out(2000)
    rejection = rejection_of(
        [scores], [labels], [np.arange(4)], [np.zeros(4)], log_probabilities=log_probabilities
    )
    best = scores.max(axis=1)
    for rate in (0.05, 0.2, 0.37):
        assert np.mean(best < rejection.threshold(rate)) == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("log_probabilities", [False, True])
def test_unknown_scores_are_those_without_the_own_class(log_probabilities):
    folds = [held_out(300, seed=seed) for seed in (0, 1)]
    # The classes of the second fold are numbered otherwise; the first two of each are seen.
    numbers = [np.arange(4), np.array([2, 5, 6, 9])]
    offset = np.array([0.3, 0.3, 0, 0])
    rejection = rejection_of(
        [scores for scores, _ in folds],
        [number[labels] for (_, labels), number in zip(folds, numbers, strict=True)],
        numbers,
        [offset, offset],
        log_probabilities=log_probabilities,
    )
    known, unknown = [], []
    for scores, labels in folds:
        for row, label in zip(scores, labels, strict=True):
            known.append((row - offset).max())
            rest = [c for c in range(4) if c != label]
            others = row[rest]
            if log_probabilities:
                others = others - np.log(np.exp(others).sum())
            unknown.append((others - offset[rest]).max())
    shares = np.linspace(0, 1, 101)
    np.testing.assert_allclose(rejection.known, np.quantile(known, shares))
    np.testing.assert_allclose(rejection.unknown, np.quantile(unknown, shares))


def test_detection_is_the_share_of_unknown_rows_below_the_threshold():
    known = tuple(np.linspace(0.5, 1.0, 101))
    unknown = tuple(np.linspace(0.0, 0.8, 101))
    rejection = Rejection(known, unknown)
    assert rejection.threshold(0.1) == pytest.approx(0.55)
    assert rejection.detection(0.1) == pytest.approx(0.55 / 0.8)
    for wrong in (-0.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match="rate: expected a share in 0..1"):
            rejection.threshold(wrong)


def test_one_candidate_cannot_be_taken_away():
    scores = np.zeros((3, 1))
    labels = np.zeros(3, dtype=np.int64)
    with pytest.raises(ValueError, match="classes: expected 2 or more, got 1"):
        rejection_of([scores], [labels], [np.arange(1)], [np.zeros(1)], log_probabilities=False)
