"""Checkpoints: what is read is what was written, or one clear error; no code of a file runs."""

import os
import pickle

import pytest
import torch

from mcfa_fast.storage import CheckpointError, read_checkpoint, write_checkpoint

STATE = {"weights": torch.arange(2000.0), "history": [{"epoch": 1, "total": 0.5}], "text": "é"}


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"old": 1})
    write_checkpoint(path, STATE)
    state = read_checkpoint(path)
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert state == {k: v for k, v in STATE.items() if k != "weights"}
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.5, 0.99, -1])
def test_truncated_file_gives_one_clear_error(tmp_path, kept):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged or not a checkpoint"):
        read_checkpoint(path)


def test_flipped_byte_in_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, STATE)
    content = bytearray(path.read_bytes())
    place = content.index(STATE["weights"].numpy().tobytes())
    content[place + 4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for content in ({"weights": torch.ones(2)}, torch.ones(2), {"format": "other", "state": {}}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not a mcfa_fast checkpoint"):
            read_checkpoint(path)
    path.write_bytes(b"text, not an archive")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "absent.pt")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap",)


@pytest.mark.parametrize(
    "save", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))]
)
def test_code_in_a_file_does_not_run(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    save(Trap(), path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not (tmp_path / "trap").exists()
