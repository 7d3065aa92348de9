"""Sentences about results that ought not to be relied on."""

from types import SimpleNamespace

import numpy as np
import pytest

from mcfa_fast.evaluation import warnings_of


def result(confusion, accuracy=0.9, generalized=None):
    classes = [SimpleNamespace(name=f"class {number}") for number in range(len(confusion))]
    return SimpleNamespace(
        accuracy=accuracy,
        chance=0.5,
        generalized=generalized,
        classes=classes,
        confusion=np.array(confusion),
    )


def generalized(seen, unseen):
    return SimpleNamespace(seen=seen, unseen=unseen, chance=0.1)


GOOD = np.eye(10, dtype=int) * 5


def test_good_results_have_none():
    assert warnings_of(result(GOOD)) == ()
    assert warnings_of(result(GOOD, generalized=generalized(0.11, 0.11))) == ()


@pytest.mark.parametrize(
    ("accuracy", "seen", "unseen", "wanted"),
    [
        (0.5, 0.9, 0.9, ["ZSL is 50.0%, no better than guessing (50.0%)"]),
        (0.9, 0.0, 0.9, ["S is 0.0%, no better than guessing (10.0%)"]),
        (0.9, 0.9, 0.1, ["U is 10.0%, no better than guessing (10.0%)"]),
        (0.2, 0.1, 0.0, ["ZSL", "S", "U"]),
    ],
)
def test_at_or_below_chance(accuracy, seen, unseen, wanted):
    found = warnings_of(result(GOOD, accuracy, generalized(seen, unseen)))
    assert len(found) == len(wanted)
    assert all(sentence.startswith(start) for sentence, start in zip(found, wanted, strict=True))


def test_most_images_in_one_class_or_two():
    one, two = np.zeros((2, 10, 10), dtype=int)
    one[:, 3] = 8
    two[:5, 3], two[5:, 7] = 8, 8
    assert warnings_of(result(one)) == ("100% of the test images are taken for class 'class 3'",)
    assert warnings_of(result(two)) == (
        "100% of the test images are taken for classes 'class 3' and 'class 7'",
    )


def test_classes_count_the_same_whatever_their_number_of_images():
    """Nine in ten images are of class 0, and rightly taken for it."""
    counts = GOOD.copy()
    counts[0, 0] = 450
    assert warnings_of(result(counts)) == ()
    counts[1:, 0], counts[1:, 1:] = 5, 0
    assert warnings_of(result(counts)) == ("100% of the test images are taken for class 'class 0'",)


def test_two_of_three_classes_are_not_few_and_classes_without_images_do_not_count():
    assert warnings_of(result([[5, 0, 0], [0, 5, 0], [2, 3, 0]])) == ()
    assert warnings_of(result([[5, 0, 0], [0, 5, 0], [0, 0, 0]])) == ()
