"""Dataset folders: reading, writing, and every way in which a file can be bad."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from data_helpers import (
    TINY_LABELS,
    TINY_NAMES,
    assert_proper,
    eszsl_accuracy,
    shared_data,
    tiny_arrays,
    tiny_splits,
    write_folder,
)

from mcfa_fast.data import DatasetError, MissingFileError, load, save_folder
from mcfa_fast.data.npy import NpyFile

FILES = ("features.npy", "labels.npy", "class_names.json", "semantics.npz", "splits.json")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tiny", splits=tiny_splits())


def edit_splits(folder, edit):
    splits = tiny_splits()
    edit(splits)
    (folder / "splits.json").write_text(json.dumps(splits))


def test_folder_is_read_as_written(folder):
    dataset = load(folder)
    arrays = tiny_arrays()
    assert dataset.name == "tiny" and dataset.class_names == TINY_NAMES
    np.testing.assert_array_equal(dataset.features, arrays["features"])
    np.testing.assert_array_equal(dataset.labels, arrays["labels"])
    np.testing.assert_array_equal(dataset.semantics, arrays["semantics"])
    assert dataset.split_names == ("3/2:0", "3/2:1", "1/2:0")

    split = dataset.split("3/2:1", generalized=True)
    assert split.seen_classes.tolist() == [1, 2, 3] and split.unseen_classes.tolist() == [0, 4]
    first_rows = [list(TINY_LABELS).index(c) for c in (1, 2, 3)]
    assert split.test_seen.tolist() == first_rows
    assert_proper(split, dataset)


def test_features_stay_on_disk(folder):
    features = load(str(folder)).features
    assert isinstance(features, NpyFile) and features.path == folder / "features.npy"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("class_names.json", '["beach"', '{"beach": 0, "beach": 1}, ["beach"'),
        ("splits.json", '{"class_names"', '{"class_splits": {}, "class_names"'),
        ("splits.json", '"port": {', '"port": {"train_idx": [], '),
    ],
)
def test_keys_that_occur_twice(folder, file, old, new):
    text = (folder / file).read_text()
    assert old in text
    content = text.replace(old, new)
    (folder / file).write_text(f"[{content}" if file == "class_names.json" else content)
    with pytest.raises(DatasetError, match=rf"{file}: cannot be read as JSON: .*more than once"):
        load(folder)


@pytest.mark.parametrize(
    "labels", [TINY_LABELS * 1.0, TINY_LABELS[:, None], TINY_LABELS[:, None].astype(">f4")]
)
def test_labels_as_others_write_them(folder, labels):
    np.save(folder / "labels.npy", labels)
    np.testing.assert_array_equal(load(folder).labels, TINY_LABELS)


def test_relative_paths(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load(".").name == "tiny"
    (folder / "labels.npy").unlink()
    with pytest.raises(MissingFileError, match=f"{folder}/labels.npy: missing"):
        load(".")


def test_choice_of_features(folder):
    features = np.load(folder / "features.npy")
    np.save(folder / "features_2.npy", features[:, :2])
    np.save(folder / "features_3.npy", features[:, :3])
    assert load(folder).features.shape == (30, 6)
    for name in ("2", "features_2", "features_2.npy"):
        assert load(folder, features=name).features.shape == (30, 2)
    with pytest.raises(DatasetError, match="no features 'features_9'; there are: features, "):
        load(folder, features="9")
    (folder / "features.npy").unlink()
    with pytest.raises(DatasetError, match="features=...; there are: features_2, features_3"):
        load(folder)
    (folder / "features_3.npy").unlink()
    assert load(folder).features.shape == (30, 2)


def test_choice_of_semantics(folder):
    path = folder / "semantics.npz"
    table = tiny_arrays()["semantics"]
    np.savez(path, attr=table, kg=2 * table, kg_names=np.array(TINY_NAMES))
    np.testing.assert_array_equal(load(folder, semantics="kg").semantics, 2 * table)
    for options in ({}, {"semantics": "kg_names"}, {"semantics": "text"}):
        with pytest.raises(DatasetError, match="semantics.npz: .*there are: attr, kg$"):
            load(folder, **options)
    np.savez(path, attr=2 * table, text=table)
    np.testing.assert_array_equal(load(folder).semantics, table)
    np.savez(path, attr=table, attr_names=np.array(["a", "b", "c"]))
    np.testing.assert_array_equal(load(folder).semantics, table)


def test_index_gives_the_classes_of_the_descriptors(folder):
    table = tiny_arrays()["semantics"]
    order = np.array([3, 0, 4, 1, 2])
    np.savez(folder / "semantics.npz", kg=table[order], kg_index=order)
    np.testing.assert_array_equal(load(folder).semantics, table)
    for index, rows, message in (
        (order[:3], 3, r"'kg' has no descriptor of class 'forest' \(1\), 'port' \(2\)$"),
        (order[:4], 5, "kg_index: expected one class for every row"),
        (np.array([0, 1, 2, 3, 3]), 5, "kg_index: 3 occurs more than once"),
        (np.array([0, 1, 2, 3, 5]), 5, "kg_index: 5 is out of range"),
    ):
        np.savez(folder / "semantics.npz", kg=table[:rows], kg_index=index)
        with pytest.raises(DatasetError, match=message):
            load(folder)


@pytest.mark.parametrize("file", FILES)
def test_missing_file(folder, file):
    (folder / file).unlink()
    if file == "splits.json":
        assert load(folder).split_names == ()
    else:
        with pytest.raises(MissingFileError, match=f"{folder / file}: missing") as caught:
            load(folder)
        assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("file", FILES)
def test_truncated_file(folder, file):
    content = (folder / file).read_bytes()
    for size in sorted({0, 1, 7, len(content) // 2, len(content) - 1}):
        (folder / file).write_bytes(content[:size])
        with pytest.raises(DatasetError, match=f"{folder / file}: cannot be read as"):
            load(folder)


@pytest.mark.parametrize("file", FILES)
def test_damaged_bytes_never_escape_as_another_error(folder, file):
    content = (folder / file).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        (folder / file).write_bytes(damaged)
        try:
            load(folder)
        except DatasetError as error:
            assert str(folder) in str(error)
            refused += 1
    assert refused


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("file", ["features.npy", "labels.npy", "semantics.npz"])
def test_nothing_is_unpickled(folder, file):
    target = folder / "unpickled"
    bomb = np.array([Bomb(target)], dtype=object)
    if file.endswith(".npz"):
        np.savez(folder / file, text=bomb)
    else:
        np.save(folder / file, bomb, allow_pickle=True)
    with pytest.raises(DatasetError, match="pickled objects are never loaded"):
        load(folder)
    (folder / file).write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(DatasetError, match="pickled objects are never loaded"):
        load(folder)
    assert not target.exists()


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("features.npy", np.zeros((30, 6), dtype=bool), r"\(.*features.npy\): expected real"),
        ("features.npy", np.zeros((0, 6)), r"features.npy"),
        ("features.npy", np.zeros((29, 6)), r"tiny: labels: expected shape \(29,\)"),
        ("labels.npy", TINY_LABELS + 1, "tiny: labels: row 4 has label 5"),
        ("labels.npy", TINY_LABELS + 0.5, "labels.npy: expected whole numbers, got 0.5"),
        ("labels.npy", np.full(30, np.nan), "labels.npy: expected whole numbers, got nan"),
        ("labels.npy", np.full(30, 2**64 - 1, np.uint64), "label 18446744073709551615, but"),
        ("labels.npy", np.zeros((30, 2), int), r"labels: expected shape \(30,\)"),
        ("semantics.npz", np.zeros((4, 3)), r"tiny: semantics: expected shape \(5, A\)"),
    ],
)
def test_bad_content_names_the_folder(folder, file, array, message):
    if file.endswith(".npz"):
        np.savez(folder / file, text=array)
    else:
        np.save(folder / file, array)
    with pytest.raises(DatasetError, match=message):
        load(folder)


def test_values_of_features_are_checked_when_they_are_read(folder):
    features = np.array(np.load(folder / "features.npy"))
    features[21, 4] = np.inf
    np.save(folder / "features.npy", features)
    dataset = load(folder)
    rows = dataset.rows(np.arange(29, 19, -1))
    with pytest.raises(DatasetError, match=r"features \(.*features.npy\): .* row 21 "):
        rows.array()


@pytest.mark.parametrize("dtype", ["<i8", ">f4", ">u2", "<f8"])
def test_features_of_any_real_type(folder, dtype):
    values = (100 * tiny_arrays()["features"]).astype(dtype)
    np.save(folder / "features.npy", values)
    rows = load(folder).rows(np.arange(30))
    np.testing.assert_array_equal(rows.array(), values.astype(np.float32))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("class_splits"), "either class_splits or row_splits"),
        (lambda s: s.update(row_splits={}), "either class_splits or row_splits"),
        (lambda s: s.update(class_splits=[]), "class_splits is not an object"),
        (lambda s: s["class_splits"].update({"3/2": {}}), r"class_splits\['3/2'\] is not a list"),
        (lambda s: s["class_splits"]["3/2"][0].pop("seen_idx"), "needs a list seen_idx"),
        (lambda s: s["class_splits"]["3/2"][1].update(k=0), "its own whole number k, got 0"),
        (lambda s: s["class_splits"]["3/2"][1].update(k="1"), "its own whole number k, got '1'"),
        (lambda s: s["class_splits"]["3/2"][1].update(seen_idx=[1, 4]), "both seen and unseen"),
        (lambda s: s["class_splits"]["3/2"][1].update(seen_idx=[1, None]), "list of integers"),
        (lambda s: s["class_splits"]["3/2"][1].update(seen_idx=[2**70]), "list of integers"),
        (lambda s: s["class_splits"]["3/2"][1].update(seen_idx=[3, True]), "list of integers"),
        (lambda s: s["class_splits"]["3/2"][1].update(seen_idx=[2**64 - 1]), "out of range"),
        (lambda s: s.update(class_names=TINY_NAMES[::-1]), "class_names differ"),
        (lambda s: s.update(gzsl_partition=[]), "gzsl_partition is not an object"),
        (lambda s: s["gzsl_partition"].update(x={}), "gzsl_partition names 'x'"),
        (lambda s: s["gzsl_partition"].update(port={}), r"\['port'\] needs a list train_idx"),
        (
            lambda s: s["gzsl_partition"].update(port={"train_idx": [0], "test_idx": [2]}),
            "partition of class 'port': row 0 is of class 'beach'",
        ),
    ],
)
def test_bad_splits(folder, edit, message):
    edit_splits(folder, edit)
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_splits_json_of_another_kind(folder):
    for content in ("[]", "3", "null", '{"row_splits": {"zsl": {"a": []}}}', "[" * 100_000):
        (folder / "splits.json").write_text(content)
        with pytest.raises(DatasetError, match="splits.json: "):
            load(folder)


def test_row_splits_from_json(folder):
    zsl = {"train": [11, 1], "test_unseen": [0]}
    gzsl = {"train": [6], "test_seen": [1], "test_unseen": [0]}
    content = {"row_splits": {"zsl": {"mine": zsl}, "gzsl": {"mine": gzsl}}}
    (folder / "splits.json").write_text(json.dumps(content))
    dataset = load(folder)
    assert dataset.split_names == ("mine",)
    assert dataset.split(generalized=False).train.tolist() == [11, 1]
    assert dataset.split(generalized=True).test_seen.tolist() == [1]


def test_unknown_folders(tmp_path):
    with pytest.raises(MissingFileError, match="expected a folder or one of digits, synthetic"):
        load(tmp_path / "absent")
    with pytest.raises(MissingFileError, match="no known layout"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError, match="found a file"):
        load(tmp_path / "file")


def test_classes_without_rows_survive_saving(tmp_path):
    folder = write_folder(tmp_path / "tiny")
    np.save(folder / "labels.npy", np.minimum(TINY_LABELS, 3))
    copy = load(save_folder(load(folder), tmp_path / "copy"))
    assert (tmp_path / "copy" / "splits.json").exists() and copy.split_names == ("4/1:0",)
    assert copy.split(generalized=False).unseen_classes.tolist() == [4]


@pytest.mark.parametrize("splits", [None, tiny_splits()], ids=["no splits", "splits"])
def test_save_and_load_again(tmp_path, splits):
    first = load(write_folder(tmp_path / "tiny", splits=splits))
    second = load(save_folder(first, tmp_path / "new" / "copy"))
    assert second.name == "copy" and second.class_names == first.class_names
    assert second.features.dtype == first.features.dtype
    for field in ("features", "labels", "semantics"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    assert second.split_names == first.split_names
    for name in (*first.split_names, "3/2:seed=7"):
        for generalized in (False, True):
            a, b = (data.split(name, generalized=generalized) for data in (first, second))
            for field in vars(a):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_save_does_not_overwrite(folder):
    dataset = load(folder)
    before = {file: (folder / file).read_bytes() for file in FILES}
    with pytest.raises(FileExistsError, match="expected an empty or new folder"):
        save_folder(dataset, folder)
    assert before == {file: (folder / file).read_bytes() for file in FILES}


def test_aid():
    folder = shared_data("aid")
    with pytest.raises(DatasetError, match="there are: features_1024, features_512"):
        load(folder)
    dataset = load(folder, features="512")
    assert dataset.features.shape == (10_000, 512) and dataset.features.dtype == np.float16
    assert load(folder, features="features_1024").features.shape == (10_000, 1024)
    assert len(dataset.class_names) == 30 and dataset.semantics.shape == (30, 384)
    assert load(folder, features="512", semantics="attr").semantics.shape == (30, 44)
    with pytest.raises(DatasetError, match="'kg' has no descriptor of class 'Center'.*'Pond'"):
        load(folder, features="512", semantics="kg")

    stored = json.loads((folder / "splits.json").read_text())
    names = [f"{r}:{s['k']}" for r, group in stored["class_splits"].items() for s in group]
    assert dataset.split_names == tuple(names) and len(names) == 15
    for ratio, group in stored["class_splits"].items():
        for entry in group:
            split = dataset.split(f"{ratio}:{entry['k']}", generalized=True)
            assert_proper(split, dataset)
            for side, key in ((split.seen_classes, "seen"), (split.unseen_classes, "unseen")):
                assert [dataset.class_names[c] for c in side] == entry[f"{key}_classes"]
            parts = [stored["gzsl_partition"][name] for name in entry["seen_classes"]]
            assert set(split.train) == {row for part in parts for row in part["train_idx"]}
            assert set(split.test_seen) == {row for part in parts for row in part["test_idx"]}
            rest = set(range(10_000)) - set(dataset.split(split.name, generalized=False).train)
            assert set(split.test_unseen) == rest


def test_aid_splits_are_those_drawn_by_default(tmp_path):
    source = shared_data("aid")
    stored = load(source, features="512")
    for file in ("features_512.npy", "labels.npy", "class_names.json", "semantics.npz"):
        shutil.copy(source / file, tmp_path)
    bare = load(tmp_path)
    for name in stored.split_names:
        a = stored.split(name, generalized=True)
        b = bare.split(name.replace(":", ":seed="), generalized=True)
        for field in ("seen_classes", "unseen_classes", "train", "test_seen", "test_unseen"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_aid_descriptors_help_to_recognise_unseen_classes():
    dataset = load(shared_data("aid"), features="512")
    splits = [dataset.split(f"20/10:{k}", generalized=False) for k in range(5)]
    accuracy = np.mean([eszsl_accuracy(dataset, s, dataset.semantics) for s in splits])
    assert accuracy > 0.35  # chance is 0.1
