"""What a folder of results belongs to: its options and the content of its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mcfa_fast.storage.atomic import write_text
from mcfa_fast.storage.checkpoint import CheckpointError

__all__ = ["Fingerprint", "changes", "claim", "fingerprint"]


def claim(path: Path, content: Mapping[str, Any]) -> None:
    """Makes `path` a JSON file that says what its folder is for, or checks that it says so.

    Raises:
        ValueError: If the file says something else; it names the differences.
        CheckpointError: If the file is damaged.
    """
    if not path.exists():
        write_text(path, json.dumps(content, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: damaged, not the JSON object that a run writes")
    wanted = json.loads(json.dumps(content))  # lists for tuples, as when it is read back
    if differences := changes(found, wanted):
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


class Fingerprint:
    """A short text that changes with the shape, type or content of a tensor seen in pieces.

    Example:
        >>> import torch
        >>> rows = torch.arange(6.0).view(3, 2)
        >>> seen = Fingerprint()
        >>> total = sum(piece.sum() for piece in seen.watch(rows.split(2)))
        >>> seen.text == fingerprint([rows])
        True
    """

    def __init__(self) -> None:
        self._digest, self._length, self._text = hashlib.sha256(), 0, ""

    def watch(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The pieces, unchanged, each noted on its way: one reading serves two purposes."""
        for piece in pieces:
            array = piece.detach().cpu().contiguous().numpy()
            self._digest.update(array.data.cast("B"))
            self._length += len(array)
            self._text = f"{array.dtype}{[self._length, *array.shape[1:]]}"
            yield piece

    @property
    def text(self) -> str:
        """The fingerprint of what has been seen."""
        return f"{self._text} {self._digest.hexdigest()[:16]}"


def fingerprint(pieces: Iterable[Tensor]) -> str:
    """The :class:`Fingerprint` of a tensor given in pieces.

    Example:
        >>> import torch
        >>> whole = torch.arange(6.0).view(3, 2)
        >>> fingerprint([whole]) == fingerprint(whole.split(2))
        True
    """
    found = Fingerprint()
    for _ in found.watch(pieces):
        pass
    return found.text
