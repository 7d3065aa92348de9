"""The bulk path against the model itself: values, kinds of files, memory and errors."""

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.inference import (
    METHODS,
    MCFAClassifier,
    MeanEncoder,
    bulk,
    encode_images,
    encode_means,
    latent_chunks,
)
from mcfa_fast.models import MCFA

FEATURES = 24

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_chunks(monkeypatch):
    """17 rows in a chunk."""
    monkeypatch.setattr(bulk, "_CHUNK", 17 * FEATURES)


def images(rows, offset=0.0, dtype=np.float32):
    values = np.random.default_rng(0).normal(size=(rows, FEATURES)) + offset
    return values.astype(dtype)


def trained(offset=0.0, **options):
    """A model with a fitted scaler and biases that are not 0."""
    options = {"visual_hidden": 40, **options}
    model = MCFA(FEATURES, 5, MCFAConfig(latent_features=6, **options))
    model.scaler.fit(torch.from_numpy(images(300, offset)))
    generator = torch.Generator().manual_seed(0)
    for layer in (model.visual.encoder.hidden, model.visual.encoder.mean):
        if layer is not None:
            torch.nn.init.normal_(layer.bias, generator=generator)
    return model


def exact_means(model, features):
    """In float64, without folding anything."""
    with torch.no_grad():
        return model.double().encode_visual(torch.from_numpy(features).double())[0]


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e4])  # the last is not folded
@pytest.mark.parametrize("hidden", [40, None])
@pytest.mark.parametrize("scaling", ["minmax", "unit", "none"])
def test_folded_encoder_is_as_exact_as_the_model(offset, hidden, scaling):
    features = images(200, offset)
    model = trained(offset, visual_hidden=hidden, feature_scaling=scaling)
    plain = encode_images(model, features)[0].double()
    folded = MeanEncoder(model)(torch.from_numpy(features)).double()
    wanted = exact_means(model, features)
    assert (folded - wanted).abs().max() <= 4 * (plain - wanted).abs().max() + 1e-6


def test_large_offsets_would_lose_digits_if_folded(monkeypatch):
    """What the limit is for."""
    features, model = images(200, 1e4), trained(1e4)
    monkeypatch.setattr(bulk, "_LARGEST_OFFSET", float("inf"))
    folded = MeanEncoder(model)(torch.from_numpy(features)).double()
    error = (folded - exact_means(model, features)).abs().max()
    assert error > 1e-4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 16, 17, 18, 34, 100])
@pytest.mark.parametrize("kind", ["array", "mapped", "read-only", "strided", "part of a map"])
def test_every_kind_of_features_gives_the_same(dtype, rows, kind, small_chunks, tmp_path):
    model, features = trained(), images(rows, dtype=dtype)
    wanted = torch.cat(
        [
            MeanEncoder(model)(torch.from_numpy(features[start : start + 17]).float())
            for start in range(0, rows, 17)
        ]
    )
    given = features.copy()
    if kind in ("mapped", "part of a map"):
        np.save(tmp_path / "features.npy", np.concatenate([features[:1], features]))
        given = np.load(tmp_path / "features.npy", mmap_mode="r")[1:]
        if kind == "part of a map":
            given = np.asarray(given)
    if kind == "read-only":
        given.flags.writeable = False
    if kind == "strided":
        given = np.asfortranarray(given)[::-1][::-1]
    assert torch.equal(encode_means(model, given), wanted)


def test_chunks_cover_the_rows_in_order(small_chunks):
    model = trained()
    rows = [(part.start, part.stop) for part, _ in latent_chunks(model, images(40))]
    assert rows == [(0, 17), (17, 34), (34, 40)]


def test_memory_is_constant(tmp_path):
    """Ten times the rows take no more memory."""
    peaks = []
    for rows in (30_000, 300_000):
        mapped = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, (rows, FEATURES))
        del mapped
        features = np.load(tmp_path / "f.npy", mmap_mode="r")
        model = trained()
        tracemalloc.start()
        for _ in latent_chunks(model, features):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0]


def test_reader_ends_when_the_caller_stops_early(small_chunks):
    features = images(200)
    features.flags.writeable = False
    before = threading.active_count()
    chunks = latent_chunks(trained(), features)
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
    with pytest.raises(ValueError, match=f"features: NaN or infinity in row {row}$"):
        encode_means(trained(), features)


def test_sums_that_overflow_are_no_error():
    features = images(40)
    features[:, 0] = 2e38
    assert len(encode_means(trained(), features)) == 40


def test_float64_beyond_float32_is_an_error():
    features = images(40, dtype=np.float64)
    features[7, 2] = 1e39
    with pytest.raises(ValueError, match="NaN or infinity in row 7"):
        encode_means(trained(), features)


@pytest.fixture(scope="module")
def classifier(one_thread):
    seen_images, labels = make_images(SEEN, rows=20)
    settings = config("gzsl", epochs=10)
    return MCFAClassifier(settings).fit(seen_images, labels, make_semantics()[:NEW])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calibration", [None, 0.2])
def test_classifier_gives_the_same_in_chunks_of_any_size(
    classifier, method, calibration, monkeypatch, tmp_path
):
    """Rows on disk, and few enough scores at a time that a chunk of rows is cut up."""
    rows, _ = make_images(np.arange(NEW), rows=40, seed=5)
    classifier.set_params(method=method, calibration=calibration)
    wanted, labels = classifier.decision_function(rows), classifier.predict(rows)
    assert np.array_equal(classifier.classes_[wanted.argmax(axis=1)], labels)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    monkeypatch.setattr(bulk, "_CHUNK", 20 * rows.shape[1])
    monkeypatch.setattr("mcfa_fast.classifiers.classifier_old._SCORES", 7 * NEW)
    np.testing.assert_allclose(classifier.decision_function(mapped), wanted, atol=1e-5)
    assert np.array_equal(classifier.predict(mapped), labels)
