"""The folder of one training run: configuration, checkpoint, metrics and TensorBoard events."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcfa_fast.config import MCFAConfig
from mcfa_fast.training.checkpoint import (
    CheckpointError,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
)

__all__ = ["RunFolder", "changes", "claim", "fingerprint"]


class RunFolder:
    """Files of one run, written so that the run can be killed at any moment and resumed.

    ``config.json`` and ``inputs.json`` say what is trained, ``checkpoint.pt`` holds the state
    after the last finished epoch, ``metrics.csv`` one row per epoch, ``tensorboard/`` the same as
    events.

    Args:
        path: The folder; created if absent.
        config: The run's options.
        inputs: What the run depends on besides its options, see :func:`fingerprint`.

    Raises:
        ValueError: If the folder belongs to a run with other options or inputs; it names them.
        CheckpointError: If a file is damaged.
    """

    def __init__(self, path: Path, config: MCFAConfig, inputs: dict[str, str]) -> None:
        self._path = path
        self._checkpoint = path / "checkpoint.pt"
        path.mkdir(parents=True, exist_ok=True)
        claim(path / "config.json", config.model_dump(mode="json"))
        claim(path / "inputs.json", inputs)
        self._events = None

    def start(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint to resume from, if any; makes the metrics agree with it.

        Raises:
            CheckpointError: If the checkpoint is damaged.
        """
        from torch.utils.tensorboard import SummaryWriter  # slow to import, needed only here

        state = None
        if self._checkpoint.exists():
            state = read_checkpoint(self._checkpoint, device)
        history = state["history"] if state else []
        # The row of an epoch that was killed before its checkpoint was written disappears here.
        self._write_metrics(history)
        self._events = SummaryWriter(self._path / "tensorboard", purge_step=len(history) + 1)
        return state

    def finish_epoch(self, state: dict[str, Any]) -> None:
        """Records the last epoch of ``state["history"]``, then writes ``state`` as checkpoint."""
        self._write_metrics(state["history"])
        metrics = state["history"][-1]
        for name, value in metrics.items():
            if name != "epoch":
                self._events.add_scalar(name, value, metrics["epoch"])
        self._events.flush()
        write_checkpoint(self._checkpoint, state)

    def close(self) -> None:
        """Closes the event file."""
        if self._events is not None:
            self._events.close()

    def _write_metrics(self, history: list[dict[str, float]]) -> None:
        columns = dict.fromkeys(name for metrics in history for name in metrics)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(
            self._path / "metrics.csv", lambda file: file.write(text.getvalue().encode())
        )


def claim(path: Path, content: dict[str, Any]) -> None:
    """Makes `path` a JSON file that says what its folder is for, or checks that it says so.

    Raises:
        ValueError: If the file says something else; it names the differences.
        CheckpointError: If the file is damaged.
    """
    if not path.exists():
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: damaged, not the JSON object that a run writes")
    if differences := changes(found, content):
        raise ValueError(
            f"{path.parent}: this folder belongs to a different run ({'; '.join(differences)}). "
            "Choose another folder (--run-dir or --out), or delete this one to train anew."
        )


def changes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two objects as JSON has them, a text for each value.

    Example:
        >>> changes({"seed": 0, "grid": {"a": [1]}}, {"seed": 0, "grid": {"a": [1, 2]}})
        ['grid.a was [1] and is [1, 2]']
    """
    texts = []
    for key in sorted(found.keys() | wanted.keys()):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            texts += [f"{key}.{text}" for text in changes(old, new)]
        elif old != new:
            texts.append(f"{key} was {old!r} and is {new!r}")
    return texts


def fingerprint(rows: Iterable[Tensor]) -> str:
    """A short text that changes with the shape, type or content of a tensor given in pieces.

    Example:
        >>> whole = torch.arange(6.0).view(3, 2)
        >>> fingerprint([whole]) == fingerprint(whole.split(2))
        True
    """
    digest, length, text = hashlib.sha256(), 0, ""
    for piece in rows:
        array = piece.detach().cpu().contiguous().numpy()
        digest.update(memoryview(array).cast("B"))
        length += len(array)
        text = f"{array.dtype}{[length, *array.shape[1:]]}"
    return f"{text} {digest.hexdigest()[:16]}"
