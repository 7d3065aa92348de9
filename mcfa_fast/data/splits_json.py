"""The ``splits.json`` of a dataset folder.

Splits by class, each list entry being the split ``"RATIO:k"``::

    {"class_splits": {"20/10": [{"k": 0, "seen_idx": [...], "unseen_idx": [...]}, ...]},
     "gzsl_partition": {"Airport": {"train_idx": [...], "test_idx": [...]}, ...}}

Unseen classes may have no rows: they are trained for, but cannot be tested. ``gzsl_partition``
may be left out; then every class is divided 75/25. Or splits by row, whose classes are those of the
rows::

    {"row_splits": {"zsl": {"NAME": {"train": [...], "test_unseen": [...]}},
                    "gzsl": {"NAME": {"train": [...], "test_seen": [...], "test_unseen": [...]}}}}

All numbers count from 0. An optional ``"class_names"`` must repeat ``class_names.json``. Other
keys are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import read_json
from mcfa_fast.data.splits import ClassSplits, Rows, RowSplits

_CLASS_SPLIT_NAME = re.compile(r"(.*):(0|[1-9]\d*)")


def read_splits(path: Path, class_names: Sequence[str]) -> ClassSplits | RowSplits:
    """Read ``splits.json``; classes and rows are checked later, against the labels.

    Raises:
        DatasetError: if the file is not JSON of the form above.
    """
    content = read_json(path)
    if not isinstance(content, dict) or ("class_splits" in content) == ("row_splits" in content):
        raise DatasetError(f"{path}: expected an object with either class_splits or row_splits")
    if "class_names" in content and content["class_names"] != list(class_names):
        raise DatasetError(f"{path}: class_names differ from those of class_names.json")
    if "row_splits" in content:
        return _row_splits(content, path)
    return _class_splits(content, path, class_names)


def splits_to_json(splits: ClassSplits | RowSplits, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``splits.json`` for ``splits``."""
    if isinstance(splits, RowSplits):
        tables = {"zsl": splits.zsl, "gzsl": splits.gzsl}
        return {
            "row_splits": {
                kind: {
                    name: {k: v.tolist() for k, v in rows._asdict().items() if v.size}
                    for name, rows in table.items()
                }
                for kind, table in tables.items()
            }
        }
    ratios: dict[str, list[dict[str, Any]]] = {}
    for name, (seen, unseen) in splits.classes.items():
        match = _CLASS_SPLIT_NAME.fullmatch(name)
        if match is None:
            raise DatasetError(f"split {name!r}: splits.json needs names of the form RATIO:k")
        ratio, k = match.groups()
        entry = {"k": int(k), "seen_idx": seen.tolist(), "unseen_idx": unseen.tolist()}
        ratios.setdefault(ratio, []).append(entry)
    content: dict[str, Any] = {"class_splits": ratios}
    if splits.partition is not None:
        content["gzsl_partition"] = {
            class_names[label]: {"train_idx": train.tolist(), "test_idx": test.tolist()}
            for label, (train, test) in splits.partition.items()
        }
    return content


def _class_splits(content: Any, path: Path, class_names: Sequence[str]) -> ClassSplits:
    classes: dict[str, Any] = {}
    for ratio, entries in _object(content, "class_splits", path).items():
        if not isinstance(entries, list):
            raise DatasetError(f"{path}: class_splits[{ratio!r}] is not a list")
        for entry in entries:
            where = f"an entry of class_splits[{ratio!r}]"
            seen, unseen = (_list(entry, key, where, path) for key in ("seen_idx", "unseen_idx"))
            k = entry.get("k")
            if type(k) is not int or k < 0 or f"{ratio}:{k}" in classes:
                raise DatasetError(f"{path}: {where} needs its own whole number k, got {k!r:.60}")
            classes[f"{ratio}:{k}"] = (seen, unseen)
    if "gzsl_partition" not in content:
        return ClassSplits(classes)
    partition: dict[int, Any] = {}
    labels = {name: label for label, name in enumerate(class_names)}
    for name, entry in _object(content, "gzsl_partition", path).items():
        if name not in labels:
            raise DatasetError(f"{path}: gzsl_partition names {name!r}, which is no class")
        where = f"gzsl_partition[{name!r}]"
        parts = (_list(entry, key, where, path) for key in ("train_idx", "test_idx"))
        partition[labels[name]] = tuple(parts)
    return ClassSplits(classes, partition)


def _row_splits(content: Any, path: Path) -> RowSplits:
    content = _object(content, "row_splits", path)
    tables: dict[str, dict[str, Rows]] = {}
    for kind, needed in (("zsl", ("train", "test_unseen")), ("gzsl", Rows._fields)):
        tables[kind] = {}
        for name, entry in _object(content, kind, path, optional=True).items():
            where = f"row_splits[{kind!r}][{name!r}]"
            tables[kind][name] = Rows(**{k: _list(entry, k, where, path) for k in needed})
    return RowSplits(**tables)


def _object(parent: Any, key: str, path: Path, *, optional: bool = False) -> dict[str, Any]:
    value = parent.get(key, {} if optional else None)
    if not isinstance(value, dict):
        raise DatasetError(f"{path}: {key} is not an object")
    return value


def _list(entry: Any, key: str, where: str, path: Path) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), list):
        raise DatasetError(f"{path}: {where} needs a list {key}")
    return entry[key]
