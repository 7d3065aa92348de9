"""Rows of features as a view of what stays where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mcfa_fast.data import DatasetError
from mcfa_fast.data import features as module
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.storage import fingerprint

VALUES = np.random.default_rng(0).normal(size=(50, 7))
ROWS = np.array([31, 4, 4, 49, 0, 12, 13])
KINDS = ["tensor", "bfloat16", "float64", "float16", "read-only", "int16", "big-endian"]
KINDS += ["memory map", "file", "columns in a file"]


def matrix_of(kind, folder):
    values = np.round(VALUES * 8).astype(np.float32) + 0  # the same in all types: no -0
    if kind in ("tensor", "bfloat16"):
        return values, torch.from_numpy(values).to(
            torch.bfloat16 if kind == "bfloat16" else torch.float32
        )
    if kind == "read-only":
        values.flags.writeable = False
        return values, values
    if kind in ("memory map", "file", "columns in a file"):
        np.save(folder / "a.npy", np.asfortranarray(values) if "columns" in kind else values)
        path = folder / "a.npy"
        return values, np.load(path, mmap_mode="r") if kind == "memory map" else NpyFile(path)
    return values, values.astype({"int16": np.int16, "big-endian": ">f4"}.get(kind, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_of_matrix(tmp_path, kind):
    values, matrix = matrix_of(kind, tmp_path)
    for rows, view in ((slice(None), FeatureRows(matrix)), (ROWS, FeatureRows(matrix, ROWS))):
        expected = values[rows]
        assert view.shape == expected.shape and len(view) == len(expected)
        np.testing.assert_array_equal(view.array(), expected)
        np.testing.assert_array_equal(view.array(np.float64), expected)
        chunks = list(view.chunks(3))
        assert {chunk.dtype for chunk in chunks} == {torch.float32}
        assert [len(chunk) for chunk in chunks[:-1]] == [3] * (len(chunks) - 1)
        np.testing.assert_array_equal(torch.cat(chunks), expected)
        assert view.fingerprint == fingerprint([torch.from_numpy(np.array(expected))])
        np.testing.assert_array_equal(view.take(np.array([5, 2])).array(), expected[[5, 2]])
        for some in (np.array([6, 1]), torch.tensor([6, 1]), slice(1, 3)):
            index = some.numpy() if isinstance(some, torch.Tensor) else some
            np.testing.assert_array_equal(view.gather(some), expected[index])


def test_where_the_matrix_lies(tmp_path):
    for kind in KINDS:
        _, matrix = matrix_of(kind, tmp_path)
        where = FeatureRows(matrix).in_memory
        assert (where is None) == ("file" in kind or kind == "memory map")
        assert where is None or where.type == "cpu"


def test_long_rows_come_fewer_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_VALUES_PER_CHUNK", 7 * 20)
    assert [len(chunk) for chunk in FeatureRows(VALUES).chunks()] == [20, 20, 10]
    monkeypatch.setattr(module, "_VALUES_PER_CHUNK", 1)
    assert len(list(FeatureRows(VALUES).chunks())) == 50


@pytest.mark.parametrize("kind", ["float64", "tensor", "file"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e39])
def test_the_first_bad_row_is_named_by_its_number_in_the_matrix(tmp_path, kind, bad):
    values = VALUES.copy()
    values[31, 3] = values[44, 0] = bad
    matrix = torch.from_numpy(values) if kind == "tensor" else values
    if kind == "file":
        np.save(tmp_path / "a.npy", values)
        matrix = NpyFile(tmp_path / "a.npy")
    named = r"features \(.*a\.npy\)" if kind == "file" else "features"
    for rows, row in ((None, 31), (np.array([2, 44, 31]), 44)):
        with pytest.raises(DatasetError, match=rf"{named}: NaN or infinity in row {row} "):
            list(FeatureRows(matrix, rows).chunks(4))
    assert len(FeatureRows(matrix, np.array([2, 3])).array()) == 2


def test_large_finite_values_are_no_error():
    values = np.full((4, 3), 3e38)  # their sum overflows
    np.testing.assert_array_equal(FeatureRows(values).array(), values.astype(np.float32))


def test_a_watched_reading_takes_the_fingerprint():
    rows = FeatureRows(VALUES)
    rows.watch()
    next(rows.chunks(10))  # not read to the end
    assert rows.fingerprint == FeatureRows(VALUES).fingerprint
    read, rows = [], FeatureRows(VALUES)
    rows.watch()
    list(rows.chunks(10))
    rows.gather = read.append  # it is not read again
    assert rows.fingerprint == FeatureRows(VALUES).fingerprint and not read


def test_a_function_of_all_rows():
    rows = FeatureRows(VALUES)
    whole = torch.from_numpy(VALUES.astype(np.float32))
    assert torch.equal(rows.map(lambda x: x * 2, 7), whole * 2)
    assert torch.equal(rows.map(lambda x: x[:, 0] > 0), whole[:, 0] > 0)
    with pytest.raises(DatasetError, match="at least one row"):
        rows.take(np.arange(0)).map(lambda x: x)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (np.zeros((3, 2), dtype=bool), TypeError, "real numbers, got bool"),
        (torch.zeros(3, 2, dtype=torch.complex64), TypeError, "real numbers, got torch.complex64"),
        (np.array([["a"]]), TypeError, "real numbers, got <U1"),
        (np.zeros(3), DatasetError, r"shape \[N, F\] with N, F >= 1, got \(3,\)"),
        (torch.zeros(0, 3), DatasetError, r"got \(0, 3\)"),
    ],
)
def test_what_is_no_matrix(matrix, error, message):
    with pytest.raises(error, match=f"features: expected .*{message}"):
        FeatureRows(matrix)
