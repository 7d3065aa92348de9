"""Writing a dataset folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.data.splits_json import splits_to_json
from mcfa_fast.storage.atomic import write_atomically, write_text

_CHUNK_BYTES = 16 * 2**20


def save_folder(dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write ``dataset`` as a dataset folder that :func:`~mcfa_fast.data.load` reads.

    This also converts layouts that are read into memory as a whole to one that is not. Values,
    class names and splits survive unchanged; the name becomes the folder's.

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
    write_atomically(path / "features.npy", lambda file: _write_rows(file, dataset.features))
    write_atomically(path / "labels.npy", lambda file: np.save(file, dataset.labels))
    write_atomically(
        path / "semantics.npz", lambda file: np.savez(file, semantics=dataset.semantics)
    )
    _write_json(path / "class_names.json", list(dataset.class_names))
    if dataset.splits is not None:
        _write_json(path / "splits.json", splits_to_json(dataset.splits, dataset.class_names))
    return path


def _write_rows(file: BinaryIO, features: np.ndarray | NpyFile) -> None:
    """What ``numpy.save`` writes, a chunk of rows at a time."""
    descr = np.lib.format.dtype_to_descr(features.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": features.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for rows in row_chunks(len(features), max(1, _CHUNK_BYTES * len(features) // features.nbytes)):
        file.write(np.ascontiguousarray(features[rows]).view(np.uint8).data)


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")
