"""The CSV/MAT/TXT layout of the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from data_helpers import TINY_LABELS, assert_proper, tiny_arrays, write_csv_folder

from mcfa_fast.data import DatasetError, MissingFileError, load, mat_file, save_folder
from mcfa_fast.data.mat_file import read_mat


@pytest.fixture
def folder(tmp_path):
    return write_csv_folder(tmp_path / "ours")


def test_folder_is_read_as_written(folder):
    dataset = load(folder)
    arrays = tiny_arrays()
    assert dataset.class_names == ("class_00", "class_01", "class_02", "class_03", "class_04")
    np.testing.assert_array_equal(dataset.features, arrays["features"])
    np.testing.assert_array_equal(dataset.labels, arrays["labels"])
    np.testing.assert_array_equal(dataset.semantics, arrays["semantics"])

    assert dataset.split_names == ("32:1",)
    seen = [row for row in range(29, -1, -1) if TINY_LABELS[row] < 3]
    plain, general = (dataset.split("32:1", generalized=g) for g in (False, True))
    assert plain.train.tolist() == seen and plain.test_seen.size == 0
    assert general.train.tolist() == seen[4:] and general.test_seen.tolist() == seen[:4]
    for split in (plain, general):
        assert_proper(split, dataset)
        assert split.test_unseen.tolist() == [r for r in range(30) if TINY_LABELS[r] >= 3]


def test_splits_are_listed_by_ratio_and_number(folder):
    for ratio, k in (("23", 1), ("32", 10), ("32", 2)):
        for kind in ("seen", "unseen"):
            target = folder / f"zsl_{ratio}_5split" / f"{kind}_class_loc_{ratio}_{k}.txt"
            target.parent.mkdir(exist_ok=True)
            target.write_text((folder / f"zsl_32_5split/{kind}_class_loc_32_1.txt").read_text())
    dataset = load(folder)
    assert dataset.split_names == ("32:1", "32:2", "32:10", "23:1")
    with pytest.raises(DatasetError, match=r"'32:2' has no generalized form"):
        dataset.split("32:2", generalized=True)


def test_variants_of_the_files(folder):
    (folder / "label_rest18_tune.txt").rename(folder / "labels.txt")
    table = tiny_arrays()["semantics"]
    scipy.io.savemat(folder / "bert.mat", {"x": table[None]})
    np.testing.assert_array_equal(load(folder).semantics, table)
    scipy.io.savemat(folder / "word.mat", {"x": 2 * table})
    with pytest.raises(DatasetError, match="choose one with semantics=...; there are: bert, word"):
        load(folder)
    np.testing.assert_array_equal(load(folder, semantics="word").semantics, 2 * table)
    (folder / "other.csv").write_text((folder / "rest18_tune.csv").read_text())
    with pytest.raises(DatasetError, match="features=...; there are: other, rest18_tune"):
        load(folder, semantics="bert")
    assert load(folder, semantics="bert", features="other.csv").features.shape == (30, 6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", ["", "a,b,c,d,e,f\n", '"x 0",1,2,3,4,5\n'])
def test_header_and_byte_order_mark(folder, header, encoding):
    path = folder / "rest18_tune.csv"
    path.write_text(header + path.read_text(), encoding=encoding)
    np.testing.assert_array_equal(load(folder).features, tiny_arrays()["features"])


@pytest.mark.parametrize("shift", [0, 1000])
def test_the_unnamed_index_that_pandas_writes_is_no_feature(folder, shift):
    path = folder / "rest18_tune.csv"
    rows = [f"{shift + row},{line}" for row, line in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join([",0,1,2,3,4,5", *rows]))
    np.testing.assert_array_equal(load(folder).features, tiny_arrays()["features"])
    if shift == 0:  # without a header nothing else says that it is one
        path.write_text("\n".join(rows))
        with pytest.warns(UserWarning, match=r"rest18_tune\.csv: the first column counts the rows"):
            assert load(folder).features.shape == (30, 7)


@pytest.mark.parametrize("written", ["%d", "%.18e", "%.1f", "+%d"])
def test_whole_numbers_in_any_notation(folder, written):
    for path in (folder / "label_rest18_tune.txt", *folder.glob("*zsl_*/*.txt")):
        np.savetxt(path, np.loadtxt(path), fmt=written)
    dataset = load(folder)
    np.testing.assert_array_equal(dataset.labels, TINY_LABELS)
    assert_proper(dataset.split("32:1", generalized=True), dataset)


@pytest.mark.parametrize("value", ["0.5", "nan", "inf", "1e300", "-1"])
def test_rows_that_are_no_whole_numbers(folder, value):
    path = folder / "zsl_32_5split" / "seen_class_loc_32_1.txt"
    path.write_text(f"{value}\n")
    with pytest.raises(DatasetError, match="expected whole numbers|-1 is out of range"):
        load(folder)


def test_modules_in_the_current_folder_are_not_run(folder, monkeypatch, tmp_path):
    """Reading an uncompressed .mat file starts another interpreter."""
    marker = tmp_path / "ran"
    for name in ("random", "scipy", "numpy", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.testing.assert_array_equal(load(folder).semantics, tiny_arrays()["semantics"])
    assert not marker.exists()


def test_a_file_that_crashes_the_reader_is_refused(folder, monkeypatch):
    """As a file does whose sizes and types contradict each other: the other interpreter dies."""
    monkeypatch.setattr(mat_file, "_TRIAL", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(DatasetError, match=r"bert\.mat: .* contradict each other"):
        load(folder)


def test_without_splits(folder):
    for file in folder.glob("*zsl_*/*"):
        file.unlink()
    dataset = load(folder)
    assert dataset.split_names == ()
    assert_proper(dataset.split("3/2:seed=0", generalized=True), dataset)


def test_converts_to_a_dataset_folder(folder, tmp_path):
    first = load(folder)
    second = load(save_folder(first, tmp_path / "converted"))
    np.testing.assert_array_equal(first.features, second.features)
    for generalized in (False, True):
        a, b = (data.split(generalized=generalized) for data in (first, second))
        for field in vars(a):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize(
    "file",
    [
        "label_rest18_tune.txt",
        "zsl_32_5split/unseen_class_loc_32_1.txt",
        "gzsl_32_5split/test_seen_class_loc_32_1.txt",
    ],
)
def test_missing_file(folder, file):
    (folder / file).unlink()
    with pytest.raises(MissingFileError, match=f"{folder / file}: missing"):
        load(folder)


def test_missing_choice(folder):
    (folder / "bert.mat").unlink()
    with pytest.raises(DatasetError, match="choose one with semantics=...; there are: none"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rest18_tune.csv", "", "rest18_tune.csv: cannot be read as a table of numbers"),
        ("rest18_tune.csv", "1,2\n3\n", "rest18_tune.csv: cannot be read as a table .* row"),
        ("rest18_tune.csv", "a,b\n3,c\n", "rest18_tune.csv: cannot be read .*'c'"),
        ("rest18_tune.csv", "1,2\n3,4\n", r"labels: expected shape \(2,\)"),
        ("rest18_tune.csv", "1\n" * 29 + "nan\n", "features: NaN or infinity in row 29"),
        ("label_rest18_tune.txt", "0\n" * 30, "label_rest18_tune.txt: .* from 1 up, got 0"),
        ("label_rest18_tune.txt", "1.5\n" * 30, "tune.txt: expected whole numbers, got 1.5"),
        ("label_rest18_tune.txt", "6\n" * 30, r"labels: row 0 has label 5"),
        ("bert.mat", "x", "bert.mat: cannot be read as a MATLAB file"),
        ("zsl_32_5split/seen_class_loc_32_1.txt", "30\n", "train: 30 is out of range"),
        ("zsl_32_5split/seen_class_loc_32_1.txt", "3\n", "all rows together: 3 occurs"),
        ("zsl_32_5split/seen_class_loc_32_1.txt", "8\n", "all rows together: 8 occurs"),
        ("zsl_32_5split/seen_class_loc_32_1.txt", "\n", "seen_class_loc_32_1.txt: cannot be read"),
        ("zsl_32_5split/seen_class_loc_32_x.txt", "1\n", "expected a split number"),
    ],
)
def test_bad_content(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_bad_descriptors(folder):
    table = tiny_arrays()["semantics"]
    scipy.io.savemat(folder / "bert.mat", {"x": table, "y": table})
    with pytest.raises(DatasetError, match=r"bert.mat: expected one variable, got \['x', 'y'\]"):
        load(folder)
    scipy.io.savemat(folder / "bert.mat", {"x": table[0]})
    with pytest.raises(DatasetError, match="bert.mat: expected descriptors"):
        load(folder)


@pytest.mark.parametrize("byte", [144, 204, 224])
def test_a_damaged_mat_file_does_not_crash_the_interpreter(byte, tmp_path):
    path = tmp_path / "bert.mat"
    scipy.io.savemat(path, {"x": np.array([["bb"]], dtype=object)})
    content = bytearray(path.read_bytes())
    content[byte] = 14  # SciPy's own reader crashes on each of these
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"bert\.mat: cannot be read as a MATLAB file"):
        read_mat(path)
