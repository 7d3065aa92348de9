"""The dataset folder: ``.npy``, ``.npz`` and ``.json`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcfa_fast.data.checks import check_indices, describe_classes
from mcfa_fast.data.class_names import read_class_names
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.errors import DatasetError, MissingFileError
from mcfa_fast.data.files import choose, read_npy, read_npz, read_npz_names, require, whole_numbers
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.data.splits_json import read_splits

COMPANIONS = ("_index", "_names")
"""How the names of arrays in semantics.npz end that go with descriptors and are none."""


def load_folder(
    path: Path, *, features: str | None = None, semantics: str | None = None
) -> Dataset:
    """Load a dataset folder.

    ========================= =====================================================================
    ``features.npy``          numbers ``[N, F]``, read as needed; or several ``features_NAME.npy``
    ``labels.npy``            whole numbers ``[N]`` or ``[N, 1]``, indices into
                              ``class_names.json``
    ``class_names.json``      list of C names, or an object of names and indices or the reverse
    ``semantics.npz``         named descriptors ``[C, A]``. With an array ``NAME_index [C]``, row j
                              of ``NAME`` belongs to class ``NAME_index[j]``. Arrays called
                              ``*_index`` or ``*_names`` are not descriptors
    ``splits.json``           optional, see :mod:`mcfa_fast.data.splits_json`; without it, classes
                              that have no rows are the unseen ones
    ========================= =====================================================================

    Args:
        path: The folder.
        features: Which features: ``"512"``, ``"features_512"`` or ``"features_512.npy"``. None is
            ``features.npy``, or the only ``features_NAME.npy``.
        semantics: Which array of ``semantics.npz``. None is the only one, or ``"text"``.

    Raises:
        DatasetError: if a file is missing, damaged or inconsistent with the others, or if there
            is more than one choice.
    """
    features_path = _features_file(path, features)
    labels_path = require(path / "labels.npy", "the label of every row of features")
    semantics_path = require(path / "semantics.npz", "the descriptors of the classes")
    class_names = read_class_names(path / "class_names.json")
    splits_path = path / "splits.json"
    return Dataset(
        name=path.resolve().name,
        features=NpyFile(features_path),
        labels=_read_labels(labels_path),
        class_names=class_names,
        semantics=_read_semantics(semantics_path, semantics, class_names),
        splits=read_splits(splits_path, class_names) if splits_path.exists() else None,
    )


def _read_labels(path: Path) -> np.ndarray:
    labels = read_npy(path)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return whole_numbers(labels, str(path)) if labels.dtype.kind == "f" else labels


def _features_file(path: Path, name: str | None) -> Path:
    files = sorted(path.glob("features.npy")) + sorted(path.glob("features_*.npy"))
    if not files:
        raise MissingFileError(f"{path / 'features.npy'}: missing (the features [N, F])")
    if name is None and files[0].name == "features.npy":
        return files[0]
    if name is not None and not name.startswith("features"):
        name = f"features_{name}"
    return choose(files, name, option="features", where=path)


def _read_semantics(path: Path, name: str | None, class_names: Sequence[str]) -> np.ndarray:
    stored = read_npz_names(path)
    choices = [key for key in stored if not key.endswith(COMPANIONS)]
    if name is None:
        name = choices[0] if len(choices) == 1 else "text"
        if name not in choices:
            raise DatasetError(
                f"{path}: choose one with semantics=...; there are: {', '.join(choices) or 'none'}"
            )
    if name not in choices:
        raise DatasetError(f"{path}: no semantics {name!r}; there are: {', '.join(choices)}")
    table = read_npz(path, name)
    if f"{name}_index" not in stored:
        return table
    what = f"{path}: {name}_index"
    index = check_indices(read_npz(path, f"{name}_index"), what, len(class_names))
    if table.ndim != 2 or len(table) != len(index):
        raise DatasetError(
            f"{what}: expected one class for every row of {name!r}, "
            f"got {len(index)} for shape {table.shape}"
        )
    missing = np.setdiff1d(np.arange(len(class_names)), index)
    if missing.size:
        raise DatasetError(
            f"{path}: {name!r} has no descriptor of class {describe_classes(missing, class_names)}"
        )
    return table[np.argsort(index)]
