"""The CSV/MAT/TXT layout in which MCFA's authors keep their data."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.files import choose, read_text, require, to_zero_based
from mcfa_fast.data.mat_file import read_mat
from mcfa_fast.data.splits import Rows, RowSplits

_SPLIT_FOLDER = re.compile(r"(g?zsl)_(\w+)_5split")


def load_csv_folder(
    path: Path, *, features: str | None = None, semantics: str | None = None
) -> Dataset:
    """Load a folder in the layout of the authors' public code.

    =========================================== ===================================================
    ``NAME.csv``                                features ``[N, F]``, kept as float32; a header, and
                                                under it an index without a name, are left out
    ``label_NAME.txt``, or one ``label*.txt``   labels that count from 1, one per line
    one ``.mat`` file                           one variable ``[C, A]``, the descriptors
    ``zsl_RATIO_5split/``                       ``seen_class_loc_RATIO_K.txt`` and
                                                ``unseen_class_loc_RATIO_K.txt``: training and test
                                                rows, counting from 0, one per line
    ``gzsl_RATIO_5split/``                      the same and ``test_seen_class_loc_RATIO_K.txt``
    =========================================== ===================================================

    Splits are called ``"RATIO:K"``, for example ``"6010:1"``, and keep the rows in the order of
    the files. Classes are called ``"class_00"``, ``"class_01"`` and so on. The table is
    read into memory; :func:`~mcfa_fast.data.save_folder` converts it once to memory-mapped form.

    Args:
        path: The folder.
        features: Stem of the ``.csv`` file; None if there is only one.
        semantics: Stem of the ``.mat`` file; None if there is only one.

    Raises:
        DatasetError: if a file is missing, damaged or inconsistent with the others, or if there
            is more than one choice.
    """
    features_path = choose(sorted(path.glob("*.csv")), features, option="features", where=path)
    semantics_path = choose(sorted(path.glob("*.mat")), semantics, option="semantics", where=path)
    table = _read_semantics(semantics_path)
    labels_path = _labels_file(path, features_path)
    labels = to_zero_based(read_text(labels_path, np.int64, dimensions=1), str(labels_path))
    return Dataset(
        name=path.resolve().name,
        features=_read_features(features_path),
        labels=labels,
        class_names=tuple(f"class_{label:02d}" for label in range(len(table))),
        semantics=table,
        splits=_read_splits(path),
    )


def _read_features(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        names = [name.strip().strip('"') for name in file.readline().split(",")]
    has_header = not all(_is_number(name) for name in names) and any(names)
    table = read_text(path, np.float32, dimensions=2, skip=int(has_header))
    if has_header and not names[0] and table.shape[1] > 1:
        return np.ascontiguousarray(table[:, 1:])
    if len(table) > 2 and (table[:, 0] == np.arange(len(table))).all():
        warnings.warn(
            f"{path}: the first column counts the rows from 0, as an index does; it is taken as a "
            "feature",
            stacklevel=2,
        )
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labels_file(path: Path, features_path: Path) -> Path:
    named = path / f"label_{features_path.stem}.txt"
    others = sorted(path.glob("label*.txt"))
    return others[0] if not named.exists() and len(others) == 1 else require(named, "the labels")


def _read_semantics(path: Path) -> np.ndarray:
    variables = read_mat(path)
    if len(variables) != 1:
        raise DatasetError(f"{path}: expected one variable, got {sorted(variables)}")
    table = np.squeeze(next(iter(variables.values())))
    if table.ndim != 2:
        raise DatasetError(f"{path}: expected descriptors [C, A], got shape {table.shape}")
    return table


def _read_splits(path: Path) -> RowSplits | None:
    tables: dict[str, dict[str, Rows]] = {"zsl": {}, "gzsl": {}}
    for folder in sorted(path.glob("*zsl_*_5split"), reverse=True):
        match = _SPLIT_FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        kind, ratio = match.groups()
        for seen in sorted(folder.glob(f"seen_class_loc_{ratio}_*.txt"), key=_number):
            rows = {"train": seen, "test_unseen": folder / f"un{seen.name}"}
            if kind == "gzsl":
                rows["test_seen"] = folder / f"test_{seen.name}"
            arrays = {
                part: read_text(require(file, f"{part} rows"), np.int64, dimensions=1)
                for part, file in rows.items()
            }
            tables[kind][f"{ratio}:{_number(seen)}"] = Rows(**arrays)
    return RowSplits(**tables) if tables["zsl"] or tables["gzsl"] else None


def _number(file: Path) -> int:
    number = file.stem.rpartition("_")[2]
    if not number.isdecimal():
        raise DatasetError(f"{file}: expected a split number at the end of the name")
    return int(number)
