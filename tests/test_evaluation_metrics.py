"""Metrics against counting by hand."""

import numpy as np
import pytest

from mcfa_fast.evaluation import class_table, confusion, harmonic_mean, mean_class_accuracy


def counted_accuracy(labels, predictions):
    per_class = {}
    for label, prediction in zip(labels, predictions, strict=True):
        per_class.setdefault(label, []).append(label == prediction)
    return sum(sum(hits) / len(hits) for hits in per_class.values()) / len(per_class)


@pytest.mark.parametrize("seed", range(5))
def test_mean_class_accuracy_equals_counting(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([2, 5, 11], size=50, p=[0.8, 0.15, 0.05])
    predictions = np.where(rng.random(50) < 0.6, labels, rng.choice([0, 2, 5, 11, 40], size=50))
    result = mean_class_accuracy(labels, predictions)
    assert result == pytest.approx(counted_accuracy(labels, predictions), abs=1e-15)


def test_mean_class_accuracy_weighs_classes_not_rows():
    assert mean_class_accuracy([0] * 99 + [1], [0] * 100) == 0.5


@pytest.mark.filterwarnings("error")
def test_mean_class_accuracy_is_silent_about_foreign_predictions():
    assert mean_class_accuracy([0, 1], [7, 1]) == 0.5


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "labels: expected at least one row"),
        ([0, 1], [0], "predictions: expected one per label"),
        ([[0]], [0], "labels: expected a vector"),
        ([0.0], [0], "labels: expected integer"),
        ([0], ["a"], "predictions: expected integer"),
    ],
)
def test_mean_class_accuracy_rejects(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        mean_class_accuracy(labels, predictions)


@pytest.mark.parametrize(
    ("seen", "unseen", "expected"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.9, 0.1, 1 / (0.5 / 0.9 + 0.5 / 0.1))],
)
def test_harmonic_mean(seen, unseen, expected):
    assert harmonic_mean(seen, unseen) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_harmonic_mean_rejects(bad):
    with pytest.raises(ValueError, match="unseen: expected an accuracy"):
        harmonic_mean(0.5, bad)


def test_confusion_counts_in_the_given_order():
    labels, predictions = [9, 9, 4, 4, 4], [9, 4, 4, 9, 4]
    assert confusion(labels, predictions, [9, 4]).tolist() == [[1, 1], [1, 2]]
    assert confusion(labels, predictions, [4, 7, 9]).tolist() == [[2, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert confusion([], [], [4, 9]).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "predictions", "classes", "message"),
    [
        ([0, 2], [0, 0], [0, 1], "labels: expected only classes in `classes`, got 2"),
        ([0, 1], [0, 3], [0, 1], "predictions: expected only classes in `classes`, got 3"),
        ([0], [0], [0, 0], "classes: expected distinct"),
    ],
)
def test_confusion_rejects(labels, predictions, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion(labels, predictions, classes)


def test_class_table_reads_rows_of_the_confusion():
    names = ("pond", "port", "road")
    table = class_table([[3, 1], [0, 0]], [2, 0], names)
    assert [(row.index, row.name, row.count, row.correct) for row in table] == [
        (2, "road", 4, 3),
        (0, "pond", 0, 0),
    ]
    assert [row.accuracy for row in table] == [0.75, None]
