"""What a sweep tunes and on what, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.experiments.compare import data_fingerprint, load_once, resolve_splits
from mcfa_fast.experiments.space import Choice, Range, Space, resolve_space
from mcfa_fast.experiments.trial_score import FoldTraining, Part, parts_of
from mcfa_fast.selection.folds import ClassFold
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.registry import RECOMMENDED

__all__ = ["SweepPlan", "base_config"]


@dataclass(frozen=True)
class SweepPlan:
    """A sweep's inputs.

    Attributes:
        space: what varies, by full names.
        preset: the values of these options that trial 0 tries.
        training: what workers do.
        parts: the trainings of every trial.
        fold_classes: number of candidates in every part: what a score is among.
        splits: names of the splits.
        seeds: seeds of the trainings.
        identity: all of this, and the data, as values that JSON knows.
    """

    space: dict[str, Range | Choice]
    preset: dict[str, Any]
    training: FoldTraining
    parts: list[Part]
    fold_classes: tuple[int, ...]
    splits: list[str]
    seeds: tuple[int, ...]
    identity: dict[str, Any]

    @classmethod
    def make(
        cls,
        search: Space,
        fixed: Mapping[str, Any],
        training: FoldTraining,
        splits: Sequence[str] | None,
        seeds: Sequence[int],
    ) -> SweepPlan:
        """Check arguments of :func:`~mcfa_fast.experiments.sweep.sweep`.

        Args:
            search, fixed, splits, seeds: see there.
            training: what workers do.

        Raises:
            ValueError: as there.
        """
        base, seeds = training.base, tuple(dict.fromkeys(seeds))
        if not (search and seeds):
            raise ValueError("search, seeds: expected an option and a seed, got none")
        space = resolve_space(search, base)
        for key in map(base.full_name, fixed):
            if key in space:
                raise ValueError(f"{key}: expected to be either searched or fixed, got both")

        dataset = load_once(training.data, training.features, training.semantics)
        names = resolve_splits(dataset, dataset.split_names if splits is None else splits)
        if not names:
            raise ValueError("splits: expected one or more, got none")
        parts, folds = parts_of(dataset, names, seeds, base)
        _check_classes(space, folds)
        identity = {
            **data_fingerprint(dataset),
            "run": base.model_dump(mode="json"),
            "search": {key: asdict(values) for key, values in space.items()},
            "on_splits": names,
            "seeds": seeds,
        }
        return cls(
            space=space,
            preset={key: base.names[key] for key in space},
            training=training,
            parts=parts,
            fold_classes=tuple(len(fold.candidates) for fold in folds),
            splits=names,
            seeds=seeds,
            identity=json.loads(json.dumps(identity)),  # as when it is read back
        )


def base_config(
    system: str = RECOMMENDED,
    *,
    task: Task,
    preset: str | None,
    head: str | None,
    fixed: Mapping[str, Any],
    folds: int | None,
) -> RunConfig:
    """The preset with fixed options, which trials change; nothing in it looks at test rows.

    Raises:
        ValueError: on an unknown name, a bad option, or one that may not be fixed.
    """
    if "seed" in fixed:
        raise ValueError("seed: not to be fixed, it is given by 'seeds'")
    base = RunConfig.of(system, task=task, preset=preset, head=head)
    if base.selection.rule == "test":
        base = base.replace({"selection": "none"})
    if folds is not None:
        base = base.replace({"selection.folds": folds})
    base = base.replace(fixed)
    if base.selection.rule not in ("none", "calibration"):
        raise ValueError(
            "selection: expected 'none' or 'calibration', as a sweep chooses the other options and "
            f"looks at no test rows, got {base.selection.rule!r}"
        )
    return base


def _check_classes(space: Space, folds: Sequence[ClassFold]) -> None:
    """Raises unless every trial can fill its episodes with the classes that are not held out."""
    dimension = space.get("classes_per_batch")
    if dimension is None or dimension.values is None:
        return
    fewest = min(len(fold.classes) - len(fold.held_out) for fold in folds)
    highest = max(dimension.values)
    if highest > fewest:
        raise ValueError(
            f"classes_per_batch: expected at most {fewest}, the classes that the smallest fold "
            f"trains on, got {highest}"
        )
