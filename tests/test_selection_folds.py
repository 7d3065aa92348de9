"""Splits of training rows by classes."""

import numpy as np
import pytest
import torch

from mcfa_fast.selection.folds import class_folds, hold_out

# Classes 2, 5, 6, 9, 11 with 7, 10, 1, 15, 4 rows, mixed.
LABELS = np.random.default_rng(0).permutation(np.repeat([2, 5, 6, 9, 11], [7, 10, 1, 15, 4]))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("generalized", [False, True])
def test_every_row_is_in_one_part(generalized):
    fold = hold_out(LABELS, np.array([4, 1]), generalized=generalized, generator=generator())
    rows = np.concatenate([fold.train, fold.test_seen, fold.test_unseen])
    assert sorted(rows) == list(range(len(LABELS)))
    assert fold.classes.tolist() == [2, 5, 6, 9, 11] and fold.held_out.tolist() == [1, 4]
    assert np.array_equal(fold.classes[fold.labels], LABELS)
    assert set(LABELS[fold.test_unseen]) == {5, 11}
    assert set(LABELS[fold.train]) == {2, 6, 9}
    # A fifth of each other class, but class 6 keeps its only row for training.
    counts = np.bincount(LABELS[fold.test_seen], minlength=12)[[2, 6, 9]]
    assert counts.tolist() == ([1, 0, 3] if generalized else [0, 0, 0])


def test_the_test_rows_of_seen_classes_are_drawn():
    drawn = {
        tuple(hold_out(LABELS, np.array([0]), generalized=True, generator=generator(k)).test_seen)
        for k in range(5)
    }
    assert len(drawn) > 1


def test_classes_of_one_row_cannot_be_tested():
    with pytest.raises(ValueError, match="needs a second row"):
        hold_out(np.arange(5), np.array([0, 1]), generalized=True, generator=generator())


@pytest.mark.parametrize(("classes", "sizes"), [(10, [4, 3, 3]), (6, [2, 2, 2]), (5, [3, 2])])
def test_every_class_is_held_out_once(classes, sizes):
    labels = np.repeat(np.arange(classes) * 3, 4)
    folds = class_folds(labels, 3, generalized=True, generator=generator())
    assert [len(fold.held_out) for fold in folds] == sizes
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(classes))
    again = class_folds(labels, 3, generalized=True, generator=generator())
    for one, other in zip(folds, again, strict=True):
        assert np.array_equal(one.train, other.train)
    others = class_folds(labels, 3, generalized=True, generator=generator(1))
    assert any(
        a.held_out.tolist() != b.held_out.tolist() for a, b in zip(folds, others, strict=True)
    )


def test_too_few_classes():
    with pytest.raises(ValueError, match="expected 4 or more seen classes.*got 3"):
        class_folds(np.array([1, 2, 3, 3]), 3, generalized=False, generator=generator())
