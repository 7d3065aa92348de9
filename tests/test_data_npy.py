"""Arrays in .npy files, read a piece at a time."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast.data import DatasetError
from mcfa_fast.data import npy as module
from mcfa_fast.data.npy import NpyFile, file_of

TABLE = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    return tmp_path / "a.npy"


def read_pieces(monkeypatch):
    """Records (offset, bytes) of every system call that reads."""
    calls = []
    original = os.preadv

    def preadv(descriptor, buffers, offset):
        count = original(descriptor, buffers, offset)
        calls.append((offset, count))
        return count

    monkeypatch.setattr(os, "preadv", preadv)
    return calls


rows_of = st.one_of(
    st.slices(23),
    st.integers(-23, 22),
    st.lists(st.integers(-23, 22)).map(lambda rows: np.array(rows, dtype=np.int64)),
    st.lists(st.booleans(), min_size=23, max_size=23).map(np.array),
    st.lists(st.integers(0, 22), min_size=6, max_size=6).map(lambda r: np.reshape(r, (2, 3))),
)


@pytest.fixture(scope="module")
def many_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npy")
    arrays = [
        TABLE,
        np.asfortranarray(TABLE),
        TABLE.astype(">f8"),
        TABLE.astype(np.float16),
        np.arange(23, dtype=np.uint8),
        np.arange(23 * 24).reshape(23, 4, 3, 2),
        np.asfortranarray(np.arange(23 * 24).reshape(23, 4, 3, 2)),
        np.zeros((23, 0)),
    ]
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
    return [(NpyFile(folder / f"{number}.npy"), array) for number, array in enumerate(arrays)]


@settings(max_examples=150, deadline=None)
@given(rows=rows_of, kind=st.integers(0, 7))
def test_rows_are_those_of_numpy(many_kinds, rows, kind):
    file, array = many_kinds[kind]
    found = file[rows]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array[rows])


def test_it_describes_itself_as_numpy_does(many_kinds):
    for file, array in many_kinds:
        for name in ("shape", "dtype", "ndim", "size", "nbytes"):
            assert getattr(file, name) == getattr(array, name)
        assert len(file) == len(array)
        np.testing.assert_array_equal(np.asarray(file), array)
        assert np.asarray(file, dtype=np.float32).dtype == np.float32


def test_reading_changes_nothing_and_shares_nothing(path):
    file = NpyFile(path)
    file[:][:] = 0
    np.testing.assert_array_equal(np.load(path), TABLE)
    with pytest.raises(ValueError, match="is a copy"):
        np.array(file, copy=False)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (23, IndexError),
        ([0, -24], IndexError),
        (np.ones(22, dtype=bool), IndexError),
        (1.0, TypeError),
        ("a", TypeError),
        ((0, 1), TypeError),
        (None, TypeError),
    ],
)
def test_rows_that_are_not_there(path, rows, error):
    with pytest.raises(error):
        NpyFile(path)[rows]


def test_scattered_rows_are_read_once_each_in_the_order_of_the_file(path, monkeypatch):
    file = NpyFile(path)
    calls = read_pieces(monkeypatch)
    np.testing.assert_array_equal(
        file[np.array([9, 2, 22, 3, 9, 2])], TABLE[[9, 2, 22, 3, 9, 2]]
    )
    start, row = path.stat().st_size - TABLE.nbytes, 5 * 4
    assert calls == [(start + 2 * row, 2 * row), (start + 9 * row, row), (start + 22 * row, row)]


def test_long_reads_are_cut_into_pieces(path, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 64)
    calls = read_pieces(monkeypatch)
    np.testing.assert_array_equal(NpyFile(path)[:], TABLE)
    assert [count for _, count in calls] == [64] * 7 + [TABLE.nbytes - 7 * 64]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_file_that_is_cut_short_while_it_is_read(path, kept):
    file = NpyFile(path)
    assert file[:2].shape == (2, 5)
    os.truncate(path, int(kept * path.stat().st_size))
    with pytest.raises(DatasetError, match=r"a\.npy: was changed or cut short since"):
        file[:]
    with pytest.raises(DatasetError, match=r"a\.npy: cannot be read as a \.npy array"):
        NpyFile(path)


def test_a_file_that_is_changed_while_it_is_read(path):
    file = NpyFile(path)
    os.utime(path, ns=(0, 0))  # well away from the clock's resolution
    with pytest.raises(DatasetError, match=r"a\.npy: was changed or cut short since"):
        file[0]


def test_a_file_that_is_replaced_is_not_seen(path):
    file = NpyFile(path)
    np.save(path.with_name("b.npy"), TABLE + 1)
    os.replace(path.with_name("b.npy"), path)
    np.testing.assert_array_equal(file[:], TABLE)
    np.testing.assert_array_equal(NpyFile(path)[:], TABLE + 1)


def test_an_error_of_the_disk_names_the_file(path, monkeypatch):
    file = NpyFile(path)

    def preadv(descriptor, buffers, offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(DatasetError, match=r"a\.npy: cannot be read: Input/output error"):
        file[0]


def test_copies_and_pickles(path):
    file = NpyFile(path)
    assert copy.copy(file) is file and copy.deepcopy([file])[0] is file
    content = pickle.dumps(file)
    np.testing.assert_array_equal(pickle.loads(content)[3:5], TABLE[3:5])
    np.save(path, TABLE[:20])
    with pytest.raises(DatasetError, match="was changed"):
        pickle.loads(content)
    path.unlink()
    with pytest.raises(DatasetError, match=r"a\.npy: cannot be opened: No such file"):
        pickle.loads(content)


def test_the_file_is_closed_with_the_last_reference(path):
    file = NpyFile(path)
    descriptor = file._descriptor
    os.fstat(descriptor)
    del file
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_many_threads_read_at_once(path):
    file, wrong = NpyFile(path), []
    start = threading.Barrier(8)

    def work(seed):
        rows = np.random.default_rng(seed).integers(0, 23, 40)
        start.wait()
        for _ in range(50):
            if (file[rows] != TABLE[rows]).any():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("descr", "shape"),
    [("<f4", (-1, 5)), ("<f4", (2**62, 2**62)), ("|O", (23, 5)), ("<f4", (24, 5)), ("<f4", ())],
)
def test_headers_that_do_not_fit_the_file(tmp_path, descr, shape):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(TABLE.tobytes())
    with pytest.raises(DatasetError, match=r"a\.npy: "):
        NpyFile(path)


def test_where_values_stay(path):
    mapped = np.load(path, mmap_mode="r")
    assert file_of(NpyFile(path)) == file_of(mapped) == file_of(np.asarray(mapped[3:])) == str(path)
    assert file_of(TABLE) is None and file_of(mapped[[1, 2]]) is None and file_of([1.0]) is None
