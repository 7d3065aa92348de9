"""The folder of one training run: configuration, checkpoint, metrics and TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mcfa_fast.storage import claim, read_checkpoint, write_checkpoint, write_text

__all__ = ["RunFolder"]


class RunFolder:
    """Files of one training, written so that it can be killed at any moment and resumed.

    ``training.json`` says what is trained on what, ``checkpoint.pt`` holds the state after the last
    finished epoch, ``metrics.csv`` one row per epoch, ``tensorboard/`` the same as events, if
    TensorBoard is installed.

    Args:
        path: The folder; created if absent.
        identity: All that the weights depend on, as values that JSON knows: options, and
            fingerprints of the data.

    Raises:
        ValueError: If the folder belongs to a run with other options or inputs; it names them.
        CheckpointError: If a file is damaged.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._checkpoint = path / "checkpoint.pt"
        path.mkdir(parents=True, exist_ok=True)
        claim(path / "training.json", identity)
        self._events: Any = None

    def start(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint to resume from, if any; makes the metrics agree with it.

        Raises:
            CheckpointError: If the checkpoint is damaged.
        """
        state = None
        if self._checkpoint.exists():
            state = read_checkpoint(self._checkpoint, device)
        history = state["history"] if state else []
        # The row of an epoch that was killed before its checkpoint was written disappears here.
        self._write_metrics(history)
        self._events = _event_writer(self._path / "tensorboard", len(history) + 1)
        return state

    def finish_epoch(self, state: dict[str, Any]) -> None:
        """Records the last epoch of ``state["history"]``, then writes ``state`` as checkpoint."""
        self._write_metrics(state["history"])
        if self._events is not None:
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
        write_text(self._path / "metrics.csv", text.getvalue())


def _event_writer(path: Path, first_epoch: int) -> Any:
    """TensorBoard's writer, which is slow to import; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(path, purge_step=first_epoch)
