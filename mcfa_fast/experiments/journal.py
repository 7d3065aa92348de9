"""Optuna's side of a sweep: the study in a journal file, its samplers and what it can tell."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from mcfa_fast.experiments.jobs import whole_lines
from mcfa_fast.experiments.space import Choice, Range, Space
from mcfa_fast.experiments.trials import TrialRow
from mcfa_fast.storage import CheckpointError

__all__ = ["Journal"]

_NAME = "sweep"
_OWNER = "process"
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}


class Journal:
    """The trials of a sweep, on disk as they go on.

    Several processes may work on one journal, also on several machines if the folder is one that
    they share and its file system knows locks. Trial k of a sweep is always the same given what
    earlier trials gave, also when the sweep was killed before it: samplers are seeded for each
    trial alone.

    A trial belongs to the process that began it, which holds a lock of its own beside the file as
    long as it lives; one whose process has ended is free to be taken over.

    Args:
        path: the file; created if absent.
        space: what varies.
        preset: values of all options of the space, which trial 0 tries, whether or not they are in
            the space.
        points: the grid, point k for trial k from 1 on; None samples.
        sampler: "tpe", or another for uniform points where there is no grid.
        sampler_seed: its seed.
        prune: whether :meth:`Trial.should_prune` is ever true: from the second step on, below the
            median of at least five trials.

    Raises:
        CheckpointError: when the file is damaged.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        *,
        preset: dict[str, Any],
        points: list[dict[str, Any]] | None,
        sampler: str,
        sampler_seed: int,
        prune: bool,
    ) -> None:
        self._distributions = {key: _distribution(values) for key, values in space.items()}
        self._labels = {
            key: {_label(value): value for value in dimension.values}
            for key, dimension in space.items()
            if isinstance(dimension, Choice)
        }
        self._preset = preset
        self._preset_is_inside = all(preset[key] in space[key] for key in space)
        self._points, self._sampler, self._seed = points, sampler, sampler_seed
        self._folder = path.parent
        self._lock = FileLock(path.with_name("lock"))
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._alive = FileLock(self._lock_of(self._name))
        self._alive.acquire()
        backend = JournalFileBackend(str(path), lock_obj=cast(Any, _Lock(self._lock)))
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # not to announce every study
        try:
            with self._lock:
                whole_lines(path)
                self._storage = optuna.storages.JournalStorage(backend)
                self.study = optuna.create_study(
                    storage=self._storage,
                    study_name=_NAME,
                    direction="maximize",
                    load_if_exists=True,
                    sampler=self._sampler_of(0),
                    pruner=pruner if prune else optuna.pruners.NopPruner(),
                )
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: damaged, not a journal of trials") from error
        finally:
            optuna.logging.set_verbosity(verbosity)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that have begun, in their order."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing meanwhile."""
        with self._lock:
            yield

    def close(self) -> None:
        """Leaves the trials that are not finished to others."""
        self._alive.release()
        Path(self._alive.lock_file).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Trial]:
        """The trials that a killed process has left, to be run again by this one."""
        while True:
            with self.locked():
                number = next((t.number for t in self.trials if self._is_left(t)), None)
                if number is None:
                    return
                self.study.sampler = self._sampler_of(number)
                study_id = self._storage.get_study_id_from_name(_NAME)
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
                trial = self._suggest(Trial(self.study, trial_id))
            yield trial

    def rows(self) -> list[TrialRow]:
        """All trials as results."""
        return [self._row(trial) for trial in self.trials]

    def begin(self) -> Trial:
        """The next trial, with its parameters."""
        with self.locked():
            number = len(self.trials)
            self.study.sampler = self._sampler_of(number)
            waiting = len(self.study.get_trials(deepcopy=False)) > number
            point = self._point(number)
            if point is not None and not waiting:
                self.study.enqueue_trial(
                    {
                        key: _label(value) if key in self._labels else value
                        for key, value in point.items()
                    }
                )
            return self._suggest(self.study.ask())

    def options(self, trial: Trial | FrozenTrial) -> dict[str, Any]:
        """The options that a trial's parameters stand for."""
        if trial.number == 0:
            return dict(self._preset)
        return {
            key: self._labels[key][value] if key in self._labels else value
            for key, value in trial.params.items()
        }

    def report(self, trial: Trial, value: float, step: int) -> None:
        """Record a running value, unless the trial has done so before it was killed."""
        if step not in self.trials[trial.number].intermediate_values:
            trial.report(value, step)

    def end(self, trial: Trial, state: str, value: float | None = None) -> None:
        """Finish a trial: "complete" with a value, "pruned" or "failed"."""
        states = {name: number for number, name in _STATES.items()}
        self.study.tell(trial, value, state=states[state])

    def importances(self) -> dict[str, float]:
        """Share of every option in the variance of the values, the highest first (fANOVA).

        Empty with fewer than five complete trials, or when all their values are the same.
        """
        complete = [
            trial
            for trial in self.trials
            if trial.state == TrialState.COMPLETE and len(trial.params) == len(self._distributions)
        ]
        if len(complete) < 5 or len({trial.value for trial in complete}) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            shares = optuna.importance.get_param_importances(
                self.study, evaluator=evaluator, params=list(self._distributions)
            )
        except RuntimeError:  # no tree of the forest has found any variance
            return {}
        return {key: float(share) for key, share in shares.items()}

    def _row(self, trial: FrozenTrial) -> TrialRow:
        splits = trial.user_attrs.get("splits", {})
        return TrialRow(
            number=trial.number,
            state=self._state(trial),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            options=self.options(trial),
            splits={split: score for split, (score, _) in splits.items()},
            calibrations={s: c for s, (_, c) in splits.items() if c is not None},
            folds=tuple(trial.user_attrs.get("folds", ())),
            seconds=trial.user_attrs.get("seconds"),
            note=trial.user_attrs.get("note", ""),
        )

    def _point(self, number: int) -> dict[str, Any] | None:
        """The values that a trial is given; None where it is sampled, or has no parameters."""
        if number == 0:
            return self._preset if self._preset_is_inside else None
        return None if self._points is None else self._points[number - 1]

    def _state(self, trial: FrozenTrial) -> str:
        owner = trial.user_attrs.get(_OWNER)
        if trial.state == TrialState.RUNNING and owner != self._name and self._lives(owner):
            return "running"
        return _STATES[trial.state]

    def _is_left(self, trial: FrozenTrial) -> bool:
        """Whether a trial is not finished and the process that began it has ended."""
        return trial.state == TrialState.RUNNING and not self._lives(trial.user_attrs.get(_OWNER))

    def _lives(self, name: str | None) -> bool:
        if name is None:
            return False
        if name == self._name:
            return True
        lock = FileLock(self._lock_of(name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        return False

    def _lock_of(self, name: str) -> Path:
        return self._folder / f"worker-{name}.lock"

    def _suggest(self, trial: Trial) -> Trial:
        trial.set_user_attr(_OWNER, self._name)
        if trial.number == 0 and not self._preset_is_inside:
            return trial  # its values are none that Optuna knows of
        left = self.trials[trial.number]
        for key, distribution in self._distributions.items():
            if key in left.params and not distribution.single():
                # A killed process drew it: draw it in vain, so that the others are the same.
                self.study.sampler.sample_independent(self.study, left, key, distribution)
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(key, distribution.choices)
            elif isinstance(distribution, IntDistribution):
                d = distribution
                trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
            elif isinstance(distribution, FloatDistribution):
                f = distribution
                trial.suggest_float(key, f.low, f.high, step=f.step, log=f.log)
        return trial

    def _sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        # A sampler's own state is lost with its process; going on from its seed, a resumed sweep
        # would draw the same points again.
        digest = hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=4).digest()
        seed = int.from_bytes(digest, "little")
        if self._sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


class _Lock:
    """In place of Optuna's lock per write, which a killed process would leave behind locked."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _distribution(dimension: Range | Choice) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution([_label(value) for value in dimension.values])
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if step is not None and dimension.values is not None:
        high = dimension.values[-1]
    if dimension.whole:
        # As they are: floats that are whole numbers are refused when the option is set.
        return IntDistribution(cast(int, low), cast(int, high), log, cast(int, step or 1))
    return FloatDistribution(low, high, log, step)


def _label(value: Any) -> Any:
    """A value as Optuna takes it: tuples are none of its kinds."""
    return json.dumps(value) if isinstance(value, tuple) else value
