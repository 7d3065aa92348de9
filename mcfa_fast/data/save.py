"""Writing a dataset folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits_json import splits_to_json


def save_folder(dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write ``dataset`` as a dataset folder that :func:`~mcfa_fast.data.load` reads.

    This also converts the slow or unmappable layouts into memory-mapped features. Values, class
    names and splits survive unchanged; the name becomes the folder's.

    Args:
        dataset: The dataset.
        path: The folder; created with its parents, must be empty if it exists.

    Returns:
        The folder.

    Raises:
        FileExistsError: if ``path`` exists and is not an empty folder.

    >>> import tempfile
    >>> from mcfa_fast.data import load
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = save_folder(load("digits"), f"{parent}/my_digits")
    ...     load(folder)
    Dataset('my_digits': 1797 rows, 64 features, 10 classes, 26 semantic features, 5 splits)
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"path: expected an empty or new folder, {path} has files")
    np.save(path / "features.npy", dataset.features)
    np.save(path / "labels.npy", dataset.labels)
    np.savez(path / "semantics.npz", semantics=dataset.semantics)
    _write_json(path / "class_names.json", list(dataset.class_names))
    if dataset.splits is not None:
        _write_json(path / "splits.json", splits_to_json(dataset.splits, dataset.class_names))
    return path


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
