"""Checkpoints: tensors and plain containers in one file that is read without running code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from mcfa_fast.storage.atomic import write_atomically

__all__ = ["CheckpointError", "read_checkpoint", "write_checkpoint"]

_FORMAT = "mcfa_fast checkpoint, version 2"


class CheckpointError(ValueError):
    """A file of a training run that cannot be read."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors and plain containers) crash-safely."""
    write_atomically(path, lambda file: torch.save({"format": _FORMAT, "state": state}, file))


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what :func:`write_checkpoint` wrote; never runs code from the file.

    Args:
        path: The file.
        device: Where tensors go.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({type(error).__name__}: {error}). "
            "Delete it to train again from the start."
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a {_FORMAT}")
    return content["state"]
