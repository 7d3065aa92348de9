"""Methods compared on the same splits: what the jobs are, and what each does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from mcfa_fast import __version__, data
from mcfa_fast.systems.mcfa.config import Task
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits_json import splits_to_json
from mcfa_fast.experiments.jobs import Job
from mcfa_fast.experiments.methods_old import METHODS
from mcfa_fast.training.run_folder import fingerprint

__all__ = [
    "Comparison",
    "data_fingerprint",
    "job_identity",
    "load_once",
    "plan",
    "resolve_splits",
    "split_ratio",
]


@dataclass(frozen=True)
class Comparison:
    """The work of one job: a method, trained and evaluated on a split. It can be pickled.

    Attributes:
        data, features, semantics: what :func:`mcfa_fast.data.load` is given.
        folder: where methods keep what they resume from.
        device: where to train.
    """

    data: str
    features: str | None
    semantics: str | None
    folder: Path
    device: str = "cpu"

    def __call__(self, job: Job) -> list[dict[str, Any]]:
        """One row of results per classifier of the job's method."""
        dataset = load_once(self.data, self.features, self.semantics)
        name, split, task, seed = (job[key] for key in ("method", "split", "task", "seed"))
        folder = self.folder / f"{task}-{name}-{split}-{seed}".replace("/", "_").replace(":", "_")
        outcomes = METHODS[name].run(dataset, split, task, seed, device=self.device, folder=folder)
        rows = []
        for suffix, outcome in zip(METHODS[name].rows, outcomes, strict=True):
            result = outcome.evaluation
            row = {"classifier": name + suffix, "accuracy": result.accuracy}
            if result.generalized is not None:
                values = result.generalized
                names = ("seen", "unseen", "harmonic", "ausuc", "calibration")
                row |= {key: getattr(values, key) for key in names}
            rows.append(row | {"chosen": dict(outcome.chosen), "note": result.note})
        return rows


def plan(
    methods: Sequence[str], splits: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]
) -> list[Job]:
    """Every combination as a job, those of one split and task beside each other.

    Raises:
        ValueError: on an unknown task.

    Example:
        >>> plan(["eszsl"], ["20/10:0"], ["zsl"], [0])
        [{'method': 'eszsl', 'split': '20/10:0', 'task': 'zsl', 'seed': 0}]
    """
    for task in tasks:
        if task not in get_args(Task):
            raise ValueError(f"tasks: expected 'zsl' or 'gzsl', got {task!r}")
    return [
        {"method": method, "split": split, "task": task, "seed": seed}
        for task, split, seed, method in product(tasks, splits, seeds, methods)
    ]


def split_ratio(split: str) -> str:
    """The ratio that a split's name begins with, ``"20/10"`` of ``"20/10:0"``."""
    return split.rpartition(":")[0] or split


def resolve_splits(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Names of splits for names of splits or of ratios, a ratio meaning all its splits.

    Raises:
        DatasetError: on a name that is neither.

    Example:
        >>> resolve_splits(data.load("digits"), ["7/3"])
        ['7/3:0', '7/3:1', '7/3:2', '7/3:3', '7/3:4']
    """
    found: dict[str, None] = {}
    for name in names:
        of_ratio = [split for split in dataset.split_names if split_ratio(split) == name]
        found |= dict.fromkeys(of_ratio or [name])
    for split in found:
        if split not in dataset.split_names:
            dataset.split(split, generalized=False)  # drawn from its name, or an error
    return list(found)


def data_fingerprint(dataset: Dataset) -> dict[str, str]:
    """A short text for each part of a dataset that changes with its content."""
    features = dataset.features
    chunks = (torch.from_numpy(features[rows].copy()) for rows in row_chunks(len(features), 8192))
    splits = None
    if dataset.splits is not None:
        content = json.dumps(splits_to_json(dataset.splits, dataset.class_names))
        splits = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {
        "features": fingerprint(chunks),
        "labels": fingerprint([torch.from_numpy(dataset.labels)]),
        "semantics": fingerprint([torch.from_numpy(dataset.semantics)]),
        "splits": splits or "none",
    }


def job_identity(fingerprints: Mapping[str, str], job: Job) -> dict[str, Any]:
    """What the results of a comparison's job depend on besides the job, as values JSON knows.

    Not the device: a comparison may go on on another one.

    Args:
        fingerprints: what :func:`data_fingerprint` says.
        job: one of :func:`plan`, perhaps of a method that there is no more.

    Example:
        >>> job_identity({}, plan(["ridge"], ["20/10:0"], ["zsl"], [0])[0])["method"]["estimator"]
        'Ridge'
    """
    method = METHODS.get(job["method"])
    return {
        "version": __version__,
        "data": dict(fingerprints),
        "method": method and method.identity(job["task"], job["seed"]),
    }


# A worker runs many jobs on the same data.
load_once = lru_cache(maxsize=1)(
    lambda path, features, semantics: data.load(path, features=features, semantics=semantics)
)
