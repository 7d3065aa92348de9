"""Features that stay in their file give the same training as features in memory."""

import numpy as np
import pytest
import torch

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.training import Trainer
from mcfa_fast.training import features as module
from mcfa_fast.training.features import RawFeatures, ResidentFeatures, StreamedFeatures, place

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "epochs": 2,
    "classes_per_batch": 3,
    "instances_per_class": 4,
    "latent_features": 5,
    "visual_hidden": 12,
    "semantic_hidden": 7,
}


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
    config = MCFAConfig(sampler=sampler, batch_size=16, **SMALL)
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
    for (name, ours), theirs in zip(
        runs[True][0].state_dict().items(), runs[False][0].state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    for ours, theirs in zip(runs[True][1], runs[False][1], strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    # Either may go on with the other's run.
    inputs = [(tmp_path / str(kind) / "inputs.json").read_text() for kind in (True, False)]
    assert inputs[0] == inputs[1]


def test_a_mapped_file_is_never_read_as_a_whole(mapped, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_PER_CHUNK", 7)
    gathered = []
    original = RawFeatures.gather

    def gather(self, rows):
        gathered.append(original(self, rows))
        return gathered[-1]

    monkeypatch.setattr(RawFeatures, "gather", gather)
    values, labels, semantics = make_data(np.float32)
    Trainer(MCFAConfig(**SMALL), mapped(values), labels, semantics, resident=False).fit()
    sizes = {len(rows) for rows in gathered if rows.shape[1] == values.shape[1]}
    assert sizes == {7, 60 % 7, 12}, "chunks, the last one, and batches"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_first_bad_row_of_a_mapped_file_is_named(mapped, monkeypatch, bad):
    monkeypatch.setattr(module, "_ROWS_PER_CHUNK", 7)
    values, labels, semantics = make_data(np.float32)
    values[33:40, 2] = bad
    with pytest.raises(ValueError, match="features: row 33 has a value that is not finite"):
        Trainer(MCFAConfig(**SMALL), mapped(values), labels, semantics)


def test_an_error_while_reading_ahead_reaches_the_caller(mapped, monkeypatch):
    values, labels, semantics = make_data(np.float32)
    trainer = Trainer(MCFAConfig(**SMALL), mapped(values), labels, semantics, resident=False)

    def fail(self, rows):
        raise OSError("the disk is gone")

    monkeypatch.setattr(RawFeatures, "gather", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit()


@pytest.mark.parametrize(
    "free, resident, kind",
    [
        (10**9, None, ResidentFeatures),
        (2 * 4 * 600 - 1, None, StreamedFeatures),
        (2 * 4 * 600, None, ResidentFeatures),
        (0, True, ResidentFeatures),
        (10**9, False, StreamedFeatures),
    ],
)
def test_what_does_not_fit_is_streamed(mapped, monkeypatch, free, resident, kind):
    monkeypatch.setattr(module, "_free_memory", lambda device: free)
    raw = RawFeatures(mapped(make_data(np.float16)[0]))
    assert type(place(raw, lambda rows: rows, torch.device("cpu"), resident)) is kind


def test_what_is_in_memory_already_stays_there(monkeypatch):
    monkeypatch.setattr(module, "_free_memory", lambda device: 0)
    raw = RawFeatures(torch.rand(60, 10))
    placed = place(raw, lambda rows: rows, torch.device("cpu"), None)
    assert type(placed) is ResidentFeatures
