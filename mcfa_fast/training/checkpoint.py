"""Files that are either the old version or the new one, never half of it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = ["CheckpointError", "read_checkpoint", "write_atomically", "write_checkpoint"]

_FORMAT = "mcfa_fast training checkpoint, version 1"


class CheckpointError(ValueError):
    """A file of a training run that cannot be read."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces ``path`` with what ``write`` writes, so that a crash leaves the old or the new file.

    The content goes to a temporary file in the same folder, reaches the disk, and then takes the
    place of ``path`` in one step. One process at a time may write a path.

    Args:
        path: The file to replace or create.
        write: Called with the open binary file.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # makes the new name itself durable; elsewhere folders do not open
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
