"""Systems compared on the same splits: what the jobs are, and what each does."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.loading import load
from mcfa_fast.data.splits import Split
from mcfa_fast.data.splits_json import splits_to_json
from mcfa_fast.evaluation.warnings import ResultWarning
from mcfa_fast.experiments.contestants import Contestant
from mcfa_fast.experiments.jobs import Job
from mcfa_fast.experiments.run import run
from mcfa_fast.storage.identity import fingerprint
from mcfa_fast.systems.presets import check_task
from mcfa_fast.systems.registry import find

__all__ = [
    "Comparison",
    "data_fingerprint",
    "job_identity",
    "load_once",
    "plan",
    "resolve_splits",
    "split_ratio",
]

_NAME_LENGTH = 100


@dataclass(frozen=True)
class Comparison:
    """The work of one job: a contestant, trained and evaluated on a split. It can be pickled.

    Attributes:
        data, features, semantics: what :func:`mcfa_fast.data.load` is given.
        folder: where every job has the folder of its run, and resumes.
        device: where to compute.
    """

    data: str
    features: str | None
    semantics: str | None
    folder: Path
    device: str = "cpu"

    def __call__(self, job: Job) -> list[dict[str, Any]]:
        """One row of results per head of the job's contestant."""
        dataset = load_once(self.data, self.features, self.semantics)
        contestant = Contestant(job["system"], job["preset"])
        mode = job.get("mode", "inductive")
        config = contestant.config(job["task"], job["seed"], transductive=mode != "inductive")
        split = dataset.split(job["split"], generalized=config.task == "gzsl")
        folder = self.run_folder(job)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResultWarning)  # the tables say what chance is
            run(config, dataset, split, run_dir=folder, device=self.device)
        content = json.loads((folder / "results.json").read_bytes())
        results = content["results" if mode == "inductive" else mode]
        return [_row(contestant, head, split, content, results[head]) for head in results]

    def run_folder(self, job: Job) -> Path:
        """The folder of a job's run."""
        keys = ("task", "system", "preset", "split", "seed", "mode")
        text = "-".join(str(job[key]) for key in keys if key in job)
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()  # "_" is not unique
        name = re.sub(r"[^\w.=+-]", "_", text)[:_NAME_LENGTH]
        return self.folder / f"{name}-{digest}"


def _row(
    contestant: Contestant,
    head: str,
    split: Split,
    content: Mapping[str, Any],
    result: Mapping[str, Any],
) -> dict[str, Any]:
    """A head's results, from the content of a run's ``results.json``."""
    row = {
        "label": contestant.label(head),
        "head": head,
        "seen_classes": len(split.seen_classes),
        "unseen_classes": len(split.unseen_classes),
        "accuracy": result["accuracy"],
    }
    if result["generalized"] is not None:
        names = ("seen", "unseen", "harmonic", "ausuc", "calibration")
        row |= {name: result["generalized"][name] for name in names}
    return row | {"chosen": _chosen(head, split, content, result), "note": result["note"]}


def _chosen(
    head: str, split: Split, content: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """What was chosen on folds of the seen classes, and how good it was there."""
    selection = content["selection"]
    if selection is None:
        return {}
    all_seen = [len(split.seen_classes)] * len(selection["held_out"])
    chosen = {
        "setting": selection["setting"],
        "fold_score": selection["score"],
        "fold_classes": all_seen if split.generalized else selection["held_out"],
        "by_head": content["run"]["head"],
    }
    if result["mode"] == "transductive":
        chosen |= {"transduction": selection["transduction"][head]}
    return chosen | ({"weight": selection["weight"]} if head == "ensemble" else {})


def plan(
    contestants: Sequence[Contestant],
    splits: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    transductive: bool = False,
) -> list[Job]:
    """Every combination as a job, those of one split and task beside each other.

    Args:
        contestants, splits, tasks, seeds: what is combined.
        transductive: whether test images are classified together; such jobs say so as their mode.

    Raises:
        ValueError: on an unknown task.

    Example:
        >>> (job,) = plan([Contestant("mcfa", "v0")], ["20/10:0"], ["zsl"], [0])
        >>> " ".join(map(str, job.values()))
        'mcfa v0 20/10:0 zsl 0'
    """
    for task in tasks:
        check_task(task)
    mode = {"mode": "transductive"} if transductive else {}
    return [
        {**vars(contestant), "split": split, "task": task, "seed": seed, **mode}
        for task, split, seed, contestant in product(tasks, splits, seeds, contestants)
    ]


def split_ratio(split: str) -> str:
    """The ratio that a split's name begins with, ``"20/10"`` of ``"20/10:0"``."""
    return split.rpartition(":")[0] or split


def resolve_splits(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Names of splits for names of splits or of ratios, a ratio meaning all its splits.

    Raises:
        DatasetError: on a name that is neither.

    Example:
        >>> resolve_splits(load("digits"), ["7/3"])
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
    splits = None
    if dataset.splits is not None:
        content = json.dumps(splits_to_json(dataset.splits, dataset.class_names))
        splits = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {
        "features": FeatureRows(dataset.features).fingerprint,
        "labels": fingerprint([torch.from_numpy(dataset.labels)]),
        "semantics": fingerprint([torch.from_numpy(dataset.semantics)]),
        "splits": splits or "none",
    }


def job_identity(fingerprints: Mapping[str, str], job: Job) -> dict[str, Any]:
    """What the results of a comparison's job depend on besides the job, as values JSON knows.

    Not the device: a comparison may go on on another one.

    Args:
        fingerprints: what :func:`data_fingerprint` says.
        job: one of :func:`plan`, perhaps of a system or preset that there is no more.

    Example:
        >>> (job,) = plan([Contestant("mcfa", "paper")], ["20/10:0"], ["zsl"], [0])
        >>> identity = job_identity({}, job)
        >>> identity["run"]["options"]["training"]["epochs"], identity["grid"]
        (50, {'epochs': (10, 20, 30, 40)})
    """
    known = {"version": version("mcfa_fast"), "data": dict(fingerprints)}
    try:
        contestant = Contestant(job["system"], job["preset"])
        run = contestant.config(job["task"], job["seed"], transductive="mode" in job)
    except ValueError:
        return {**known, "run": None, "grid": None}
    return {
        **known,
        "run": run.model_dump(mode="json"),
        "grid": dict(find(run.system).grid),
    }


# A worker runs many jobs on the same data.
load_once = lru_cache(maxsize=1)(
    lambda path, features, semantics: load(path, features=features, semantics=semantics)
)
