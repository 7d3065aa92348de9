"""Helpers of the data tests: the real files beside the repository, and small folders on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mcfa_fast.data import Dataset, Split

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
XLSA17_NAMES = ("APY", "AWA2", "CUB", "SUN")

# Class sizes 4, 8, 4, 6, 8, with the rows of a class scattered.
TINY_LABELS = np.array([0, 1, 2, 3, 4] * 4 + [1, 4, 3] * 2 + [1, 4] * 2)
TINY_NAMES = ("beach", "forest", "port", "river", "school")


def shared_data(name: str) -> Path:
    """Folder ``name`` of the shared data; skips the test where it is absent."""
    folder = SHARED_DATA / name
    if not folder.exists():
        pytest.skip(f"needs {name} in ../shared/data beside the repository")
    return folder


def tiny_arrays() -> dict:
    """Arguments of a valid :class:`Dataset` with 30 rows of 5 classes; no two rows are equal."""
    rng = np.random.default_rng(0)
    return {
        "name": "tiny",
        "features": rng.random((30, 6), dtype=np.float32),
        "labels": TINY_LABELS.copy(),
        "class_names": TINY_NAMES,
        "semantics": rng.random((5, 3), dtype=np.float32),
    }


def write_folder(path: Path, *, splits: dict | None = None) -> Path:
    """Write the tiny dataset as a dataset folder, with numpy and json alone."""
    arrays = tiny_arrays()
    path.mkdir()
    np.save(path / "features.npy", arrays["features"])
    np.save(path / "labels.npy", arrays["labels"])
    np.savez(path / "semantics.npz", text=arrays["semantics"])
    (path / "class_names.json").write_text(json.dumps(TINY_NAMES))
    if splits is not None:
        (path / "splits.json").write_text(json.dumps(splits))
    return path


def tiny_splits() -> dict:
    """A valid splits.json of the tiny dataset, with an uneven partition."""
    rows = {name: np.flatnonzero(TINY_LABELS == c).tolist() for c, name in enumerate(TINY_NAMES)}
    return {
        "class_names": list(TINY_NAMES),
        "class_splits": {
            "3/2": [
                {"k": 0, "seen_idx": [0, 1, 4], "unseen_idx": [2, 3]},
                {"k": 1, "seen_idx": [3, 2, 1], "unseen_idx": [4, 0]},
            ],
            "1/2": [{"k": 0, "seen_idx": [2], "unseen_idx": [0, 1]}],
        },
        "gzsl_partition": {
            name: {"train_idx": r[1:], "test_idx": r[:1]} for name, r in rows.items()
        },
    }


def write_xlsa17(path: Path, name: str) -> Path:
    """Put a small ``res101.mat`` beside a copy of a real ``att_splits.mat``.

    The features are the image numbers, and the labels give every image a class of the right
    side (seen or unseen) according to the benchmark's own lists of class names.
    """
    source = shared_data("xlsa17_splits") / name
    path.mkdir()
    (path / "att_splits.mat").write_bytes((source / "att_splits.mat").read_bytes())
    tables = scipy.io.loadmat(path / "att_splits.mat")
    names = [str(cell[0]) for cell in tables["allclasses_names"][:, 0]]
    seen_rows = np.vstack([tables["trainval_loc"], tables["test_seen_loc"]])[:, 0].astype(int) - 1
    unseen_rows = tables["test_unseen_loc"][:, 0].astype(int) - 1
    labels = np.zeros((len(seen_rows) + len(unseen_rows), 1))
    for rows, file in ((seen_rows, "trainvalclasses.txt"), (unseen_rows, "testclasses.txt")):
        classes = [names.index(line) + 1 for line in (source / file).read_text().split()]
        labels[rows, 0] = np.resize(classes, len(rows))
    features = np.stack([np.arange(len(labels)), np.ones(len(labels))])
    tables = {"features": features, "labels": labels}
    scipy.io.savemat(path / "res101.mat", tables, do_compression=True)
    return path


def write_csv_folder(path: Path) -> Path:
    """Write the tiny dataset in the layout of the authors' code, with one split of each kind."""
    arrays = tiny_arrays()
    path.mkdir()
    np.savetxt(path / "rest18_tune.csv", arrays["features"], delimiter=",", fmt="%.9g")
    np.savetxt(path / "label_rest18_tune.txt", arrays["labels"] + 1, fmt="%d")
    scipy.io.savemat(path / "bert.mat", {"bert": arrays["semantics"]})
    seen = np.flatnonzero(TINY_LABELS < 3)[::-1]  # descending: the order must be kept
    unseen = np.flatnonzero(TINY_LABELS >= 3)
    files = {
        "zsl_32_5split/seen_class_loc_32_1": seen,
        "zsl_32_5split/unseen_class_loc_32_1": unseen,
        "gzsl_32_5split/seen_class_loc_32_1": seen[4:],
        "gzsl_32_5split/unseen_class_loc_32_1": unseen,
        "gzsl_32_5split/test_seen_class_loc_32_1": seen[:4],
    }
    for name, rows in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        np.savetxt(path / f"{name}.txt", rows, fmt="%d")
    return path


def assert_proper(split: Split, dataset: Dataset) -> None:
    """Check what holds for every split, from the labels alone."""
    parts = [split.train.tolist(), split.test_seen.tolist(), split.test_unseen.tolist()]
    rows = [row for part in parts for row in part]
    assert len(rows) == len(set(rows))
    classes = [{int(dataset.labels[row]) for row in part} for part in parts]
    assert classes[0] == set(split.seen_classes.tolist())
    assert classes[2] == set(split.unseen_classes.tolist())
    assert classes[1] <= classes[0] and not classes[0] & classes[2]
    assert bool(classes[1]) == split.generalized
    for array in (split.seen_classes, split.unseen_classes):
        assert (np.diff(array) > 0).all()
    for array in (split.seen_classes, split.unseen_classes, split.train, split.test_seen):
        assert array.dtype == np.int64


def eszsl_accuracy(dataset: Dataset, split: Split, semantics: np.ndarray) -> float:
    """Mean per-class accuracy of Romera-Paredes and Torr (2015), both regularisers 1.

    A closed form that only does better than chance if features, labels, descriptors and splits
    belong together.
    """
    features = np.asarray(dataset.features, dtype=np.float64)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    features -= features[split.train].mean(axis=0)
    table = semantics - semantics.mean(axis=0)
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    x, s = features[split.train], table[split.seen_classes]
    y = np.where(dataset.labels[split.train][:, None] == split.seen_classes, 1.0, -1.0)
    w = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y @ s)
    w = w @ np.linalg.inv(s.T @ s + np.eye(s.shape[1]))
    scores = features[split.test_unseen] @ w @ table[split.unseen_classes].T
    hits = split.unseen_classes[scores.argmax(axis=1)] == dataset.labels[split.test_unseen]
    labels = dataset.labels[split.test_unseen]
    return float(np.mean([hits[labels == c].mean() for c in split.unseen_classes]))
