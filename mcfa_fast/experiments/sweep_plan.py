"""What a sweep tunes and on what, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from mcfa_fast.systems.mcfa.config import MCFAConfig, Task
from mcfa_fast.classifiers.heads_old import METHODS
from mcfa_fast.experiments.compare import data_fingerprint, load_once, resolve_splits
from mcfa_fast.experiments.space import Choice, Range, Space, resolve_space
from mcfa_fast.experiments.trial_score import FoldTraining, Part, parts_of

__all__ = ["SweepPlan", "base_config"]

_MODES = get_args(MCFAConfig.model_fields["mode"].annotation)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep's inputs.

    Attributes:
        space: what varies.
        training: what workers do.
        parts: the trainings of every trial.
        splits: names of the splits.
        seeds: seeds of the trainings.
        identity: all of this, and the data, as values that JSON knows.
    """

    space: dict[str, Range | Choice]
    training: FoldTraining
    parts: list[Part]
    splits: list[str]
    seeds: tuple[int, ...]
    identity: dict[str, Any]

    @classmethod
    def make(
        cls,
        search: Space,
        fixed: Container[str],
        training: FoldTraining,
        splits: Sequence[str] | None,
        seeds: Sequence[int],
    ) -> SweepPlan:
        """Check arguments of :func:`~mcfa_fast.experiments.sweep.sweep`.

        Args:
            search, splits, seeds: see there.
            fixed: names of options that may not vary.
            training: what workers do.

        Raises:
            ValueError: as there.
        """
        base, seeds = training.base, tuple(dict.fromkeys(seeds))
        if not (search and seeds):
            raise ValueError("search, seeds: expected an option and a seed, got none")
        if training.method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {training.method!r}")
        if training.folds < 2:
            raise ValueError(f"folds: expected 2 or more, got {training.folds}")
        space = resolve_space(search, base)
        for key in space:
            if key in fixed:
                raise ValueError(f"{key}: expected to be either searched or fixed, got both")

        dataset = load_once(training.data, training.features, training.semantics)
        names = resolve_splits(dataset, dataset.split_names if splits is None else splits)
        if not names:
            raise ValueError("splits: expected one or more, got none")
        generalized = base.task == "gzsl"
        parts, fewest = parts_of(dataset, names, seeds, training.folds, generalized=generalized)
        _check_classes(space, base, fewest)
        identity = {
            **data_fingerprint(dataset),
            "config": base.model_dump(),
            "search": {key: asdict(values) for key, values in space.items()},
            "method": training.method,
            "on_splits": names,
            "seeds": seeds,
            "folds": training.folds,
        }
        identity = json.loads(json.dumps(identity))  # lists for tuples, as when it is read back
        return cls(space, training, parts, names, seeds, identity)


def base_config(task: Task, mode: str, fixed: Mapping[str, Any]) -> MCFAConfig:
    """The preset with fixed options, its ``selection="test"`` replaced by "last".

    Raises:
        ValueError: on an unknown mode, a bad option, or one that may not be fixed.
    """
    if mode not in _MODES:
        raise ValueError(f"mode: expected one of {_MODES}, got {mode!r}")
    for key, argument in {"task": "task", "mode": "mode", "seed": "seeds"}.items():
        if key in fixed:
            raise ValueError(f"{key}: not to be fixed, it is given by {argument!r}")
    if fixed.get("selection") == "test":
        raise ValueError("selection: 'test' looks at test rows, which a sweep never does")
    base = getattr(MCFAConfig, mode)(task, **fixed)
    return base.replace(selection="last") if base.selection == "test" else base


def _check_classes(space: Space, base: MCFAConfig, fewest: int) -> None:
    """Raises unless every trial can fill its episodes with the classes that are not held out."""

    def possible(key: str) -> tuple[Any, ...]:
        dimension = space.get(key, Choice((getattr(base, key),)))
        return dimension.values if isinstance(dimension, Choice) else (dimension.high,)

    highest = max(possible("classes_per_batch"))
    if "episodic" in possible("sampler") and highest > fewest:
        raise ValueError(
            f"classes_per_batch: expected at most {fewest}, the classes that the smallest fold "
            f"trains on, got {highest}; choose fewer, on the command line with "
            f"--set classes_per_batch={fewest}"
        )
