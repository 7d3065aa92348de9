"""Dataset and its splits, built from arrays."""

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import TINY_LABELS, assert_proper, tiny_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast.data import ClassSplits, Dataset, DatasetError, Rows, RowSplits, checks

NAN_ROW_17 = tiny_arrays()["features"]
NAN_ROW_17[17, 2] = np.nan


def test_dataset_keeps_features_and_normalises_the_rest():
    arrays = tiny_arrays()
    dataset = Dataset(
        **{
            **arrays,
            "labels": arrays["labels"].astype(np.uint8),
            "class_names": list(arrays["class_names"]),
            "semantics": arrays["semantics"].astype(np.float64),
        }
    )
    assert dataset.features is arrays["features"]
    assert dataset.labels.dtype == np.int64 and (dataset.labels == TINY_LABELS).all()
    assert dataset.class_names == arrays["class_names"]
    assert dataset.semantics.dtype == np.float32
    assert dataset.split_names == ()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("features", np.zeros(30), r"features: expected shape \[N, F\].*\(30,\)"),
        ("features", np.zeros((0, 6)), r"features: expected shape .*\(0, 6\)"),
        ("features", np.zeros((30, 6), dtype=bool), "features: expected real numbers.* bool"),
        ("features", np.zeros((30, 6), dtype=complex), "features: expected real .* complex128"),
        ("features", np.full((30, 6), 1e39), r"NaN or infinity in row 0 \(in float32\)"),
        ("features", NAN_ROW_17, "features: NaN or infinity in row 17"),
        ("labels", TINY_LABELS[:-1], r"labels: expected shape \(30,\).*\(29,\)"),
        ("labels", TINY_LABELS[:, None], r"labels: expected shape \(30,\).*\(30, 1\)"),
        ("labels", TINY_LABELS * 1.0, "labels: expected integers, got dtype float64"),
        ("labels", TINY_LABELS + 1, r"labels: row 4 has label 5, but classes are 0\.\.4"),
        ("labels", TINY_LABELS - 1, "labels: row 0 has label -1"),
        ("class_names", "abcde", "class_names: expected a list of strings"),
        ("class_names", (), "class_names: expected at least one"),
        ("class_names", ("a", "b", "c", "d", 5), "class_names: expected non-empty strings, got 5"),
        ("class_names", ("a", "b", "c", "d", "a"), "class_names: 'a' occurs more than once"),
        ("semantics", np.zeros((4, 3)), r"semantics: expected shape \(5, A\).*\(4, 3\)"),
        ("semantics", np.zeros((5, 0)), r"semantics: expected shape"),
        ("semantics", np.array(["x"] * 5), "semantics: expected numbers"),
        ("semantics", np.diag([0, 0, np.inf, 0, 0]), "semantics: a value of class 2"),
        ("semantics", np.full((5, 3), 1e300), "semantics: a value of class 0 .*too large"),
    ],
)
def test_bad_arrays_are_named(field, value, message):
    with pytest.raises(DatasetError, match=message):
        Dataset(**{**tiny_arrays(), field: value})


def test_features_must_be_an_array():
    with pytest.raises(TypeError, match="features: expected a numpy array, got list"):
        Dataset(**{**tiny_arrays(), "features": [[0.0]] * 30})


@pytest.mark.parametrize("row", [0, 9, 10, 29])
def test_features_are_scanned_block_by_block(monkeypatch, row):
    monkeypatch.setattr(checks, "_SCAN_BYTES", 10 * 6 * 4)
    features = tiny_arrays()["features"]
    features[row:, 5] = -np.inf
    with pytest.raises(DatasetError, match=f"row {row} "):
        Dataset(**{**tiny_arrays(), "features": features})


def test_class_splits_follow_the_partition():
    partition = {c: np.split(np.flatnonzero(TINY_LABELS == c), [2]) for c in range(5)}
    splits = ClassSplits({"a:0": ([4, 1], [0, 2])}, partition)
    dataset = Dataset(**tiny_arrays(), splits=splits)

    split = dataset.split(generalized=True)
    assert split.name == "a:0" and split.generalized
    assert split.seen_classes.tolist() == [1, 4] and split.unseen_classes.tolist() == [0, 2]
    assert split.train.tolist() == sorted([*partition[1][0], *partition[4][0]])
    assert split.test_seen.tolist() == sorted([*partition[1][1], *partition[4][1]])
    assert split.test_unseen.tolist() == [r for r, y in enumerate(TINY_LABELS) if y in (0, 2)]
    assert_proper(split, dataset)

    split = dataset.split("a:0", generalized=False)
    assert split.train.tolist() == [r for r, y in enumerate(TINY_LABELS) if y in (1, 4)]
    assert split.test_seen.size == 0 and not split.generalized
    assert_proper(split, dataset)


def test_row_splits_keep_the_order_of_the_rows():
    rows = Rows(train=[11, 1, 6], test_seen=[16], test_unseen=[5, 0])
    dataset = Dataset(**tiny_arrays(), splits=RowSplits(zsl={}, gzsl={"mine": rows}))
    split = dataset.split(generalized=True)
    assert split.train.tolist() == [11, 1, 6] and split.test_unseen.tolist() == [5, 0]
    assert split.seen_classes.tolist() == [1] and split.unseen_classes.tolist() == [0]
    assert_proper(split, dataset)
    with pytest.raises(DatasetError, match="'mine' has no conventional form"):
        dataset.split("mine", generalized=False)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (ClassSplits({"a:0": ([0, 1], [1, 2])}), r"'a:0': both seen and unseen: 'forest' \(1\)"),
        (ClassSplits({"a:0": ([0, 5], [1])}), r"seen classes: 5 is out of range 0\.\.4"),
        (ClassSplits({"a:0": ([0, -1], [1])}), "seen classes: -1 is out of range"),
        (ClassSplits({"a:0": ([0, 0], [1])}), "seen classes: 0 occurs more than once"),
        (ClassSplits({"a:0": ([0], ["1"])}), "unseen classes: expected a flat list of integers"),
        (ClassSplits({"a:0": ([0], [1.0])}), "unseen classes: expected a flat list of integers"),
        (ClassSplits({"a:0": ([0], [[1], [2, 3]])}), "unseen classes: expected a flat list"),
        (ClassSplits({"a:0": ([], [1])}), "at least one seen and one unseen class, got 0 and 1"),
        (ClassSplits({}, {0: ([0], [30])}), r"class 'beach': 30 is out of range 0\.\.29"),
        (ClassSplits({}, {0: ([0, 5], [5])}), "class 'beach', .* together: 5 occurs more"),
        (ClassSplits({}, {0: ([0, 1], [5])}), "class 'beach': row 1 is of class 'forest'"),
        (ClassSplits({}, {7: ([0], [5])}), "classes of the partition: 7 is out of range"),
        (RowSplits({"r": Rows([0], [1, 5])}, {}), "both seen and unseen: 'beach'"),
        (RowSplits({"r": Rows([0], [0])}, {}), "all rows together: 0 occurs more than once"),
        (RowSplits({"r": Rows([0], [])}, {}), "test_unseen: expected at least one row"),
        (RowSplits({"r": Rows([0], [30])}, {}), "test_unseen: 30 is out of range"),
        (RowSplits({}, {"r": Rows([0], [1])}), "test_seen: expected at least one row"),
        (RowSplits({}, {"r": Rows([0], [1], [2])}), r"test_seen has rows of class 'port' \(2\)"),
    ],
)
def test_inconsistent_splits_are_refused(splits, message):
    with pytest.raises(DatasetError, match=message):
        Dataset(**tiny_arrays(), splits=splits)


WITHOUT_SCHOOL = {**tiny_arrays(), "labels": np.minimum(TINY_LABELS, 3)}


def test_split_needs_rows_of_its_seen_classes():
    with pytest.raises(DatasetError, match=r"split 'a:0': no rows of seen class 'school' \(4\)"):
        Dataset(**WITHOUT_SCHOOL, splits=ClassSplits({"a:0": ([0, 4], [1])}))


@pytest.mark.parametrize("generalized", [False, True])
def test_unseen_classes_need_no_rows(generalized):
    splits = ClassSplits({"a:0": ([0, 1], [2, 4]), "b:0": ([0, 1], [4])})
    dataset = Dataset(**WITHOUT_SCHOOL, splits=splits)
    split = dataset.split("a:0", generalized=generalized)
    assert split.unseen_classes.tolist() == [2, 4]
    assert set(dataset.labels[split.test_unseen]) == {2}
    split.check_testable()
    split = dataset.split("b:0", generalized=generalized)
    assert split.unseen_classes.tolist() == [4] and split.test_unseen.size == 0
    assert split.test_seen.size == (3 if generalized else 0)
    with pytest.raises(DatasetError, match="'b:0': none of its 1 unseen classes has test rows"):
        split.check_testable()


def test_without_splits_classes_without_rows_are_the_unseen_ones():
    dataset = Dataset(**WITHOUT_SCHOOL)
    assert dataset.split_names == ("4/1:0",)
    split = dataset.split(generalized=False)
    assert (split.seen_classes.tolist(), split.unseen_classes.tolist()) == ([0, 1, 2, 3], [4])
    assert split.train.tolist() == list(range(30))


def test_splits_are_drawn_among_classes_with_rows():
    arrays = {**tiny_arrays(), "labels": np.maximum(TINY_LABELS, 1)}
    dataset = Dataset(**arrays)
    drawn = [dataset.split(f"2/2:seed={seed}", generalized=False) for seed in range(9)]
    for split in drawn:
        assert sorted([*split.seen_classes, *split.unseen_classes]) == [1, 2, 3, 4]
    assert len({tuple(split.seen_classes) for split in drawn}) > 1
    with pytest.raises(DatasetError, match="at most 4 together, got 3/2"):
        dataset.split("3/2:seed=0", generalized=False)


def test_generalized_split_needs_both_parts_of_every_seen_class():
    partition = {0: ([0, 5], [10]), 1: ([1], [])}
    splits = ClassSplits({"a:0": ([0], [2]), "b:0": ([1], [2]), "c:0": ([3], [2])}, partition)
    dataset = Dataset(**tiny_arrays(), splits=splits)
    assert dataset.split("a:0", generalized=True).test_seen.tolist() == [10]
    with pytest.raises(DatasetError, match="class 1 needs .* its partition has 1 and 0"):
        dataset.split("b:0", generalized=True)
    with pytest.raises(DatasetError, match="class 3 needs .* its partition has 0 and 0"):
        dataset.split("c:0", generalized=True)
    assert dataset.split("c:0", generalized=False).train.size == (TINY_LABELS == 3).sum()


def test_unknown_and_missing_splits_say_what_to_do():
    dataset = Dataset(**tiny_arrays())
    with pytest.raises(DatasetError, match="no splits; add a splits.json"):
        dataset.split(generalized=False)
    dataset = Dataset(**tiny_arrays(), splits=ClassSplits({"a:0": ([0], [1])}))
    with pytest.raises(DatasetError, match="no split 'a:1'; there are a:0, or draw"):
        dataset.split("a:1", generalized=False)
    with pytest.raises(DatasetError, match="at most 5 together, got 4/2"):
        dataset.split("4/2:seed=0", generalized=False)
    with pytest.raises(DatasetError, match="one seen and one unseen class .*got 0/2"):
        dataset.split("0/2:seed=0", generalized=False)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=8),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_drawn_splits_are_proper(counts, seed, data):
    classes = len(counts)
    seen = data.draw(st.integers(1, classes - 1))
    unseen = data.draw(st.integers(1, classes - seen))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), counts))
    dataset = Dataset(
        name="drawn",
        features=np.ones((len(labels), 1)),
        labels=labels,
        class_names=[f"class {c}" for c in range(classes)],
        semantics=np.eye(classes),
    )
    name = f"{seen}/{unseen}:seed={seed}"
    plain, general = (dataset.split(name, generalized=g) for g in (False, True))
    for split in (plain, general):
        assert_proper(split, dataset)
        assert (len(split.seen_classes), len(split.unseen_classes)) == (seen, unseen)
        assert sorted([*split.train, *split.test_seen]) == plain.train.tolist()
    assert general.seen_classes.tolist() == plain.seen_classes.tolist()
    for c in general.seen_classes:
        trained = (labels[general.train] == c).sum()
        assert abs(trained - 0.75 * counts[c]) <= 0.5
    again = dataset.split(name, generalized=True)
    assert again.train.tolist() == general.train.tolist()
