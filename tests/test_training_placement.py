"""Features that stay in their file give the same training as features in memory."""

import numpy as np
import pytest
import torch
from system_data import SMALL, assert_same_state, without_seconds

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.systems.mcfa import MCFAConfig
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.training import placement
from mcfa_fast.training.placement import ResidentFeatures, StreamedFeatures, place

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = SMALL | {"epochs": 2}
CONFIG = MCFAConfig().replace(**SMALL)


@pytest.fixture
def mapped(tmp_path):
    """Opens an array as a memory map of a file."""

    def open_mapped(values):
        path = tmp_path / "features.npy"
        np.save(path, values)
        return np.load(path, mmap_mode="r")

    return open_mapped


def make_data(dtype):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 10)).astype(dtype)
    return values, torch.arange(60) % 4, torch.rand(4, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("sampler", ["episodic", "batch"])
def test_streamed_training_is_bitwise_the_resident_one(mapped, tmp_path, dtype, sampler):
    values, labels, semantics = make_data(dtype)
    config = CONFIG.replace(sampler=sampler, batch_size=16)
    runs = {}
    for resident, features in ((True, values), (False, mapped(values))):
        trainer = Trainer(
            config,
            features,
            labels,
            semantics,
            resident=resident,
            run_dir=tmp_path / str(resident),
        )
        runs[resident] = trainer.fit(), trainer.history
    assert_same_state(runs[True][0], runs[False][0])
    assert without_seconds(runs[True][1]) == without_seconds(runs[False][1])
    # Either may go on with the other's run.
    resident, streamed = (tmp_path / str(kind) / "training.json" for kind in (True, False))
    assert resident.read_text() == streamed.read_text()


@pytest.fixture
def reads(monkeypatch):
    """Numbers of rows that are gathered, call by call, in chunks of 7."""
    sizes = []
    original = FeatureRows.gather

    def gather(self, rows):
        found = original(self, rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(FeatureRows, "gather", gather)
    monkeypatch.setattr(FeatureRows.chunks, "__defaults__", (7,))
    return sizes


def test_a_mapped_file_is_never_read_as_a_whole(mapped, reads):
    values, labels, semantics = make_data(np.float32)
    Trainer(CONFIG, mapped(values), labels, semantics, resident=False).fit()
    assert set(reads) == {7, 60 % 7, 12}, "chunks, the last one, and batches"


@pytest.mark.parametrize(("resident", "times"), [(True, 2), (False, 1)])
def test_features_are_read_at_most_twice_before_the_first_step(
    mapped, reads, tmp_path, resident, times
):
    """Once for the scaler, the check and the fingerprint of the run, once to bring them over."""
    values, labels, semantics = make_data(np.float32)
    before = []

    def hook(epoch, _):
        before.append(list(reads))

    trainer = Trainer(
        CONFIG.replace(epochs=1),
        mapped(values),
        labels,
        semantics,
        resident=resident,
        run_dir=tmp_path / "run",
        on_epoch_end=hook,
    )
    trainer.fit()
    chunks = [size for size in before[0] if size != 12]
    assert sum(chunks) == times * len(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_first_bad_row_of_a_mapped_file_is_named(mapped, monkeypatch, bad):
    monkeypatch.setattr(FeatureRows.chunks, "__defaults__", (7,))
    values, labels, semantics = make_data(np.float32)
    values[33:40, 2] = bad
    with pytest.raises(ValueError, match=r"features \(.*npy\): NaN or infinity in row 33"):
        Trainer(CONFIG, mapped(values), labels, semantics).fit()


def test_an_error_while_reading_ahead_reaches_the_caller(mapped, monkeypatch):
    values, labels, semantics = make_data(np.float32)
    trainer = Trainer(CONFIG, mapped(values), labels, semantics, resident=False)
    original = FeatureRows.gather

    def fail(self, rows):
        if isinstance(rows, slice):
            return original(self, rows)
        raise OSError("the disk is gone")

    monkeypatch.setattr(FeatureRows, "gather", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit()


@pytest.mark.parametrize(
    ("free", "resident", "kind"),
    [
        (10**9, None, ResidentFeatures),
        (2 * 4 * 600 - 1, None, StreamedFeatures),
        (2 * 4 * 600, None, ResidentFeatures),
        (0, True, ResidentFeatures),
        (10**9, False, StreamedFeatures),
    ],
)
def test_what_does_not_fit_is_streamed(mapped, monkeypatch, free, resident, kind):
    monkeypatch.setattr(placement, "_free_memory", lambda device: free)
    raw = FeatureRows(mapped(make_data(np.float16)[0]))
    assert type(place(raw, lambda rows: rows, torch.device("cpu"), resident)) is kind


def test_what_is_in_memory_already_stays_there(monkeypatch):
    monkeypatch.setattr(placement, "_free_memory", lambda device: 0)
    raw = FeatureRows(torch.rand(60, 10))
    placed = place(raw, lambda rows: rows, torch.device("cpu"), None)
    assert type(placed) is ResidentFeatures
