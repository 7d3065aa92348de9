"""The ``class_names.json`` of a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcfa_fast.data.checks import check_class_names
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import read_json, require

__all__ = ["read_class_names"]


def read_class_names(path: Path) -> tuple[str, ...]:
    """Names of the classes 0..C-1: a list, or an object that says the index of each name, or the
    name of each index.

    Raises:
        DatasetError: if the file is missing or of another form, a name occurs twice, or the
            indices are not 0..C-1.
    """
    content = read_json(require(path, "the class names"))
    try:
        return check_class_names(_ordered(content) if isinstance(content, dict) else content)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def _ordered(content: dict[str, Any]) -> list[Any]:
    if all(type(value) is int for value in content.values()):
        by_index = {value: name for name, value in content.items()}
    elif all(key.isdecimal() and str(int(key)) == key for key in content):
        by_index = {int(key): name for key, name in content.items()}
    else:
        raise DatasetError(
            "class_names: expected a list of names, an object of names and their indices, or one "
            f"of indices and their names, got {content!r:.60}"
        )
    if sorted(by_index) != list(range(len(content))):
        raise DatasetError(
            f"class_names: expected each of the indices 0..{len(content) - 1} once, "
            f"got {sorted(by_index)!r:.60}"
        )
    return [by_index[index] for index in range(len(content))]
