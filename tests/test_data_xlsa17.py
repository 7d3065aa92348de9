"""The xlsa17 layout, on the benchmark's real attribute and split files."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from data_helpers import XLSA17_NAMES, assert_proper, shared_data, write_xlsa17

from mcfa_fast.data import DatasetError, MissingFileError, load, save_folder
from mcfa_fast.data.npy import NpyFile


@pytest.fixture
def folder(tmp_path):
    return write_xlsa17(tmp_path / "APY", "APY")


def edit_mat(path, **changes):
    content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    content.update(changes)
    scipy.io.savemat(path, {k: v for k, v in content.items() if v is not None})


@pytest.mark.parametrize("name", XLSA17_NAMES)
def test_proposed_split(tmp_path, name):
    dataset = load(write_xlsa17(tmp_path / name, name))
    source = shared_data("xlsa17_splits") / name
    tables = scipy.io.loadmat(source / "att_splits.mat")
    assert dataset.name == name and dataset.split_names == ("ps",)
    assert dataset.features.dtype == np.float32
    np.testing.assert_array_equal(dataset.semantics, tables["att"].T.astype(np.float32))

    general = dataset.split(generalized=True)
    plain = dataset.split("ps", generalized=False)
    for split in (general, plain):
        assert_proper(split, dataset)
        # Feature 0 is the image's number from 0 and the file's numbers count from 1.
        for rows, variable in (
            (split.train, "trainval_loc"),
            (split.test_unseen, "test_unseen_loc"),
        ):
            np.testing.assert_array_equal(dataset.features[rows, 0] + 1, tables[variable][:, 0])
        for side, file in (("seen", "trainvalclasses.txt"), ("unseen", "testclasses.txt")):
            names = [dataset.class_names[c] for c in getattr(split, f"{side}_classes")]
            assert sorted(names) == sorted((source / file).read_text().split())
    np.testing.assert_array_equal(general.test_seen + 1, tables["test_seen_loc"][:, 0])


def test_converts_to_a_dataset_folder(folder, tmp_path):
    first = load(folder)
    second = load(save_folder(first, tmp_path / "converted"))
    assert isinstance(second.features, NpyFile)
    for generalized in (False, True):
        a, b = (data.split("ps", generalized=generalized) for data in (first, second))
        for field in vars(a):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_choices(folder):
    (folder / "res101.mat").rename(folder / "vit.mat")
    with pytest.raises(MissingFileError, match="res101.mat: missing"):
        load(folder)
    assert load(folder, features="vit").name == "APY"
    assert load(folder, features="vit.mat", semantics="att").semantics.shape == (32, 64)
    with pytest.raises(DatasetError, match="no variable original_att"):
        load(folder, features="vit", semantics="original_att")
    with pytest.raises(DatasetError, match="no semantics 'text'; there are: att, original_att$"):
        load(folder, features="vit", semantics="text")


def test_flowers_have_no_names_and_descriptors_from_sentences(folder):
    named = load(folder)
    edit_mat(folder / "att_splits.mat", allclasses_names=None)
    dataset = load(folder)
    assert dataset.class_names == tuple(f"class_{index:03d}" for index in range(32))
    np.testing.assert_array_equal(dataset.semantics, named.semantics)
    edit_mat(folder / "att_splits.mat", att=2 * named.semantics.T)
    (folder / "att_splits.mat").rename(folder / "sent_splits.mat")
    with pytest.raises(DatasetError, match="no semantics 'att'; there are: sent$"):
        load(folder)
    dataset = load(folder, semantics="sent")
    np.testing.assert_array_equal(dataset.semantics, 2 * named.semantics)
    assert dataset.split_names == ("ps",)


def test_real_folder_without_features():
    with pytest.raises(MissingFileError, match="res101.mat: missing .features"):
        load(shared_data("xlsa17_splits") / "CUB")


@pytest.mark.parametrize("file", ["att_splits.mat", "res101.mat"])
def test_damaged_files(folder, file):
    content = (folder / file).read_bytes()
    for size in (0, 1, 100, 128, 1000, len(content) // 2):
        (folder / file).write_bytes(content[:size])
        with pytest.raises(DatasetError, match=str(folder / file)):
            load(folder)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, min(len(content), 2000), 60):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        (folder / file).write_bytes(damaged)
        try:
            load(folder)
        except DatasetError as error:
            assert str(folder) in str(error)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("att_splits.mat", {"trainval_loc": None}, "att_splits.mat: no variable trainval_loc"),
        ("att_splits.mat", {"trainval_loc": [[0]]}, "trainval_loc: .* from 1 up, got 0"),
        ("att_splits.mat", {"trainval_loc": [[1.5]]}, "trainval_loc: .* from 1 up, got 1.5"),
        ("att_splits.mat", {"trainval_loc": [[99999]]}, "train: 99998 is out of range 0..15338"),
        ("att_splits.mat", {"trainval_loc": "abc"}, "trainval_loc: expected numbers"),
        ("att_splits.mat", {"test_seen_loc": [[1]]}, "all rows together: 0 occurs more than once"),
        ("att_splits.mat", {"att": np.ones((64, 31))}, r"semantics: expected shape \(32, A\)"),
        ("att_splits.mat", {"allclasses_names": np.ones((32, 1))}, "expected one text per class"),
        ("res101.mat", {"labels": None}, "res101.mat: no variable labels"),
        ("res101.mat", {"labels": np.zeros((15339, 1))}, "labels: .* from 1 up, got 0"),
        ("res101.mat", {"labels": np.full((15339, 1), 33)}, "labels: row 0 has label 32"),
        ("res101.mat", {"labels": np.ones((15339, 1))}, "both seen and unseen: 'aeroplane'"),
        ("res101.mat", {"features": np.ones((2, 15338))}, r"labels: expected shape \(15338,\)"),
        ("res101.mat", {"features": np.full((2, 15339), np.nan)}, "features: NaN .* row 0"),
        ("res101.mat", {"features": "text"}, "expected numbers as features"),
    ],
)
def test_bad_content(folder, file, changes, message):
    edit_mat(folder / file, **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_hdf5_file_gets_a_hint(folder):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n"
    (folder / "res101.mat").write_bytes(header.ljust(1024, b"\0"))
    with pytest.raises(DatasetError, match="res101.mat: a MATLAB 7.3 .* save it with"):
        load(folder)
