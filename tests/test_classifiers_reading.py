"""Reading features in chunks: values, kinds of files, memory and errors."""

import threading
import tracemalloc

import numpy as np
import pytest
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import ZeroShotClassifier, reading
from mcfa_fast.classifiers.reading import read_chunks
from mcfa_fast.data.npy import NpyFile

FEATURES = 24

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_chunks(monkeypatch):
    """17 rows in a chunk."""
    monkeypatch.setattr(reading, "_CHUNK", 17 * FEATURES)


def images(rows, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(rows, FEATURES)).astype(dtype)


def read(features):
    """All chunks in one array; a chunk is valid until the next is asked for."""
    return np.concatenate([chunk.numpy().copy() for _, chunk in read_chunks(features)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 16, 17, 18, 34, 100])
@pytest.mark.parametrize(
    "kind", ["array", "mapped", "read-only", "strided", "part of a map", "file"]
)
def test_every_kind_of_features_gives_the_same(dtype, rows, kind, small_chunks, tmp_path):
    features = images(rows, dtype=dtype)
    given = features.copy()
    if kind in ("mapped", "part of a map"):
        np.save(tmp_path / "features.npy", np.concatenate([features[:1], features]))
        given = np.load(tmp_path / "features.npy", mmap_mode="r")[1:]
        if kind == "part of a map":
            given = np.asarray(given)
    if kind == "file":
        np.save(tmp_path / "features.npy", features)
        given = NpyFile(tmp_path / "features.npy")
    if kind == "read-only":
        given.flags.writeable = False
    if kind == "strided":
        given = np.asfortranarray(given)[::-1][::-1]
    assert np.array_equal(read(given), features.astype(np.float32))


def test_chunks_cover_the_rows_in_order(small_chunks):
    rows = [(part.start, part.stop) for part, _ in read_chunks(images(40))]
    assert rows == [(0, 17), (17, 34), (34, 40)]


def test_memory_is_constant(tmp_path):
    """Ten times the rows take no more memory."""
    peaks = []
    for rows in (30_000, 300_000):
        mapped = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, (rows, FEATURES))
        del mapped
        features = np.load(tmp_path / "f.npy", mmap_mode="r")
        tracemalloc.start()
        for _ in read_chunks(features):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0]


def test_reader_ends_when_the_caller_stops_early(small_chunks):
    features = images(200)
    features.flags.writeable = False
    before = threading.active_count()
    chunks = read_chunks(features)
    next(chunks)
    chunks.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 16, 17, 39])
@pytest.mark.parametrize("writeable", [True, False])
def test_values_that_are_not_finite_are_found(value, row, writeable, small_chunks):
    features = images(40)
    features[row, 3] = value
    features.flags.writeable = writeable
    message = rf"features: NaN or infinity in row {row} \(in float32\)$"
    with pytest.raises(ValueError, match=message):
        read(features)


def test_sums_that_overflow_are_no_error():
    features = images(40)
    features[:, 0] = 2e38
    assert len(read(features)) == 40


def test_float64_beyond_float32_is_an_error():
    features = images(40, dtype=np.float64)
    features[7, 2] = 1e39
    with pytest.raises(ValueError, match="NaN or infinity in row 7"):
        read(features)


@pytest.fixture(scope="module")
def classifier(one_thread):
    seen_images, labels = make_images(SEEN, rows=20)
    run = config("gzsl", epochs=10)
    return ZeroShotClassifier(run).fit(seen_images, labels, make_semantics()[:NEW])


@pytest.mark.parametrize("head", ("softmax", "nearest", "ensemble"))
@pytest.mark.parametrize("calibration", [None, 0.2])
def test_classifier_gives_the_same_in_chunks_of_any_size(
    classifier, head, calibration, monkeypatch, tmp_path
):
    """Rows on disk, and few enough scores at a time that a chunk of rows is cut up."""
    rows, _ = make_images(np.arange(NEW), rows=40, seed=5)
    classifier = classifier.with_head(head).set_params(calibration=calibration)
    wanted, labels = classifier.decision_function(rows), classifier.predict(rows)
    assert np.array_equal(classifier.classes_[wanted.argmax(axis=1)], labels)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    monkeypatch.setattr(reading, "_CHUNK", 20 * rows.shape[1])
    monkeypatch.setattr(reading, "_SCORES", 7 * NEW)
    np.testing.assert_allclose(classifier.decision_function(mapped), wanted, atol=1e-5)
    assert np.array_equal(classifier.predict(mapped), labels)
