"""Classifying files: what is written, in how much memory, and what is refused."""

import copy
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.export import stream
from mcfa_fast.export.stream import classify_file

NAMES = (*"abcdefghij", 'ℓ, "quoted"', "line\nbreak %d")
IMAGES = make_images(np.arange(NEW), rows=10, seed=9)[0]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(one_thread):
    classifier = mf.MCFAClassifier(config("gzsl", epochs=1, **{"softmax.epochs": 1}))
    return classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW], class_names=NAMES)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK_ROWS", 7)


def ranking(classifier, features):
    """Class indices, best first, and their probabilities, by the plain way."""
    probabilities = classifier.predict_proba(features)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return order, np.take_along_axis(probabilities, order, axis=1)


@pytest.mark.parametrize("top", [1, 3, NEW, 99])
@pytest.mark.usefixtures("small_chunks")
def test_csv_holds_the_best_classes(classifier, tmp_path, top):
    np.save(tmp_path / "in.npy", IMAGES)
    assert classify_file(classifier, tmp_path / "in.npy", tmp_path / "out.csv", top=top) == 120
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    top = min(top, NEW)
    order, probabilities = ranking(classifier, IMAGES)
    assert [int(row["row"]) for row in rows] == np.repeat(np.arange(120), top).tolist()
    assert [int(row["rank"]) for row in rows] == [*range(1, top + 1)] * 120
    assert [row["class"] for row in rows] == [NAMES[c] for c in order[:, :top].ravel()]
    scores = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(scores, probabilities[:, :top].ravel(), rtol=1e-5)


@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.usefixtures("small_chunks")
def test_npy_holds_the_best_classes(classifier, tmp_path, top):
    np.save(tmp_path / "in.npy", IMAGES)
    classify_file(classifier, tmp_path / "in.npy", tmp_path / "out", top=top, format="npy")
    records = np.load(tmp_path / "out", allow_pickle=False)
    order, probabilities = ranking(classifier, IMAGES)
    assert np.array_equal(records["class"], order[:, :top])
    np.testing.assert_allclose(records["score"], probabilities[:, :top], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8", np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.usefixtures("small_chunks")
def test_kinds_of_files(classifier, tmp_path, dtype, order):
    features = np.abs(IMAGES * 10).astype(dtype, order=order)
    np.save(tmp_path / "in.npy", features)
    classify_file(classifier, tmp_path / "in.npy", tmp_path / "out", format="npy")
    found = np.load(tmp_path / "out")["class"][:, 0]
    assert np.array_equal(found, classifier.predict(features))


@pytest.mark.usefixtures("small_chunks")
def test_progress_goes_from_nothing_to_all(classifier, tmp_path):
    np.save(tmp_path / "in.npy", IMAGES)
    calls = []
    classify_file(
        classifier,
        tmp_path / "in.npy",
        tmp_path / "out",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [*((done, 120) for done in range(0, 120, 7)), (120, 120)]


@pytest.mark.usefixtures("small_chunks")
def test_a_bad_row_far_down_is_named_and_leaves_the_old_output(classifier, tmp_path):
    features = IMAGES.copy()
    features[100, 3] = np.inf
    np.save(tmp_path / "in.npy", features)
    (tmp_path / "out").write_text("old")
    with pytest.raises(ValueError, match=r"in\.npy: NaN or infinity in row 100"):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npy", "out"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (IMAGES[:, 1:], r"in\.npy: expected shape \[N, 12\], got \[120, 11\]"),
        (IMAGES[0], r"in\.npy\): expected shape \[N, F\] with N, F >= 1, got \(12,\)"),
        (IMAGES[:0], r"in\.npy\): expected shape \[N, F\] with N, F >= 1"),
        (IMAGES.astype("S3"), r"in\.npy\): expected real numbers, got dtype \|S3"),
        (np.full((2, 12), 1e300), r"in\.npy: NaN or infinity in row 0 \(in float32\)"),
        (IMAGES.astype(object), "pickled objects are never loaded"),
    ],
)
def test_bad_files(classifier, tmp_path, features, message):
    np.save(tmp_path / "in.npy", features, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"in\.npy: missing"):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out")


def test_bad_options(classifier, tmp_path):
    np.save(tmp_path / "in.npy", IMAGES)
    with pytest.raises(ValueError, match="top: expected 1 or more, got 0"):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out", top=0)
    with pytest.raises(ValueError, match="format: expected one of .* got 'xml'"):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out", format="xml")


@pytest.mark.parametrize("name", ["in.npy", "link", "hard", "folder/../in.npy"])
def test_the_features_are_not_written_over(classifier, tmp_path, name):
    """Under whatever name."""
    np.save(tmp_path / "in.npy", IMAGES)
    (tmp_path / "link").symlink_to("in.npy")
    os.link(tmp_path / "in.npy", tmp_path / "hard")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="output: .* is read by this command"):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / name)
    assert np.array_equal(np.load(tmp_path / "in.npy"), IMAGES)


def test_a_system_that_scores_itself(tmp_path):
    np.save(tmp_path / "in.npy", IMAGES)
    classifier = mf.ZeroShotClassifier("eszsl", options={"selection": "none"})
    classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW])
    classify_file(classifier, tmp_path / "in.npy", tmp_path / "out", format="npy")
    assert np.array_equal(np.load(tmp_path / "out")["class"][:, 0], classifier.predict(IMAGES))


def nan_calibration(classifier):
    return classifier.with_head("nearest").set_params(calibration=np.nan)


def far_class(classifier):
    """As a saved classifier may be to which such a class was added without a check."""
    changed = copy.deepcopy(classifier)
    changed.table_.semantics[NEW - 1] *= 1e6
    changed.heads_["softmax"].layer.linear.weight.data[NEW - 1] = torch.nan
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan_calibration, "calibration: expected a finite number, got nan"),
        (far_class, "the scores of row 0 are not .*: .* class .* has values .* times as large"),
    ],
)
def test_scores_that_are_not_finite_are_not_written(classifier, tmp_path, change, message):
    np.save(tmp_path / "in.npy", IMAGES)
    with pytest.raises(ValueError, match=rf"in\.npy: {message}"):
        classify_file(change(classifier), tmp_path / "in.npy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_chunks")
def test_a_row_whose_scores_are_not_finite_is_named(tmp_path):
    classifier = mf.ZeroShotClassifier(config("zsl", epochs=1, head="nearest"))
    classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW])
    classifier.system_.model.visual.encoder.hidden.weight.data *= 1000
    classifier.system_.finish()
    features = IMAGES.copy()
    features[30] = 3e38
    np.save(tmp_path / "in.npy", features)
    message = r"the scores of row 30 are not finite: values of features as large as 3e\+38"
    with pytest.raises(ValueError, match=message):
        classify_file(classifier, tmp_path / "in.npy", tmp_path / "out")


MEASURE = """
import json, resource, sys
import torch
import mcfa_fast as mf
from mcfa_fast.export.stream import classify_file

torch.set_num_threads(1)
classifier = mf.ZeroShotClassifier.load(sys.argv[1])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

classify_file(classifier, sys.argv[2], sys.argv[4])  # a few chunks: whatever one of them takes
before = peak()
rows = classify_file(classifier, sys.argv[3], sys.argv[4])
print(json.dumps({"growth": peak() - before, "rows": rows}))
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.random((100, 512)), np.repeat(np.arange(10), 10)
    classifier = mf.MCFAClassifier(config("gzsl", epochs=1, **{"softmax.epochs": 1}))
    classifier.fit(images, labels, make_semantics()[:NEW]).save(tmp_path / "classifier")
    rows = 40_000
    for name, size in (("small", 6_000), ("large", rows)):
        features = np.lib.format.open_memmap(
            tmp_path / name, mode="w+", dtype=np.float64, shape=(size, 512)
        )
        features[:] = images[0]
        features.flush()
    arguments = [tmp_path / name for name in ("classifier", "small", "large", "out.csv")]
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    assert measured["rows"] == rows
    assert (tmp_path / "large").stat().st_size > 160e6
    assert measured["growth"] < 20e6
