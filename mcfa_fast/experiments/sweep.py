"""Search for options of a system on held-out seen classes, over many runs at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mcfa_fast._extras import require
from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished, in_workers
from mcfa_fast.experiments.space import Range, Space, grid
from mcfa_fast.experiments.sweep_plan import SweepPlan, base_config
from mcfa_fast.experiments.trial_score import FoldRun, FoldTraining, TrialScore
from mcfa_fast.experiments.trials import TrialRow, best_trial, trials_csv, winner
from mcfa_fast.storage import claim, write_text
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.registry import RECOMMENDED

if TYPE_CHECKING:
    from optuna.trial import Trial

    from mcfa_fast.experiments.journal import Journal

__all__ = ["Sampler", "SweepProgress", "SweepResult", "sweep"]

Sampler = Literal["tpe", "grid", "random"]

_TRIALS = 50


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has found.

    Attributes:
        rows: all trials, that of the preset first.
        winner: the best trial if it is ahead of the preset by more than its standard error, else
            the preset's; None when none is complete.
        config: the winner's run, with the first seed.
        importances: share of every option in the variance of the values; empty when unknown.
        fold_classes: number of classes among which test rows are told apart, per fold of every
            split and seed: a score means little without.
    """

    rows: list[TrialRow]
    winner: TrialRow | None
    config: RunConfig | None
    importances: dict[str, float]
    fold_classes: tuple[int, ...]


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is.

    Attributes:
        trials: number of finished trials.
        of_trials: number of trials wanted.
        trainings: number of finished trainings of the trial that the latest one belongs to.
        of_trainings: number of trainings of a trial.
        best: the best trial so far.
        failure: why the trial that has just ended failed, else None.
    """

    trials: int
    of_trials: int
    trainings: int
    of_trainings: int
    best: TrialRow | None
    failure: str | None = None


def sweep(
    out: str | os.PathLike[str],
    search: Space,
    *,
    data: str = "digits",
    features: str | None = None,
    semantics: str | None = None,
    splits: Sequence[str] | None = None,
    system: str = RECOMMENDED,
    task: Task = "zsl",
    preset: str | None = None,
    head: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    folds: int | None = None,
    sampler: Sampler | None = None,
    sampler_seed: int = 0,
    trials: int | None = None,
    prune: bool | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    device: str = "cpu",
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> SweepResult:
    """Try configurations of a system, each judged by cross-validation over classes.

    For every split and seed, the seen classes are divided into the folds of all selection
    (:func:`~mcfa_fast.selection.folds.selection_folds`); each fold in turn plays the unseen
    classes. A trial's value is the mean over splits and seeds of its mean accuracy among the
    held-out classes, or for "gzsl" of the highest harmonic mean that one calibration reaches on all
    folds. No test row of a split is looked at for that split. Several splits share classes, though:
    where the chosen configuration must know nothing of a split's unseen classes, sweep this split
    alone.

    Trial 0 is the preset itself. The best of many trials is ahead of it by chance as well, so that
    it wins only when it is ahead by more than its standard error over the folds; else the preset
    does.

    The folder `out` gets ``journal.log`` (Optuna's), ``trials.csv`` and ``best.json``, the winner's
    run for ``mcfa-fast train --config``. The same call resumes a killed sweep; a higher number of
    trials goes on with it. Several processes may call it for one folder at the same time, also on
    several machines that share it: each trial is run by one of them.

    Args:
        out: folder of the sweep.
        search: options that vary, by name as
            :meth:`~mcfa_fast.classifiers.config.RunConfig.replace` takes them.
        data, features, semantics: see :func:`mcfa_fast.data.load`.
        splits: names of splits or ratios; None is all splits of the data.
        system: name of the system.
        task: conventional or generalized.
        preset: of the system; None is its first. A rule "test" of it becomes "none".
        head: which head is judged; None is the preset's.
        fixed: options that differ from the preset, in trial 0 as well.
        seeds: seeds of every random stream; each is a training of its own.
        folds: number of folds, fewer where there are too few classes; None is the preset's.
        sampler: None is "tpe" when something has a range, else "grid".
        sampler_seed: seed of the sampler.
        trials: number of trials in all, the preset's included; None is the whole grid, or 50.
        prune: stop trials whose running mean is below the median of the others; None does unless
            there is a grid. The preset is always finished.
        jobs: number of worker processes, with one thread each. A script that calls this needs the
            usual ``if __name__ == "__main__":`` of programs that start processes.
        timeout: begin no trial after so many seconds; those that have begun are finished.
        device: where to train.
        on_progress: called after each training.

    Raises:
        ImportError: without Optuna.
        ValueError: on an option that is unknown or out of its bounds, too few classes, or a folder
            that belongs to another sweep.
    """
    require("tune", "sweep")
    from mcfa_fast.experiments.journal import Journal  # Optuna is slow to import

    fixed = fixed or {}
    base = base_config(system, task=task, preset=preset, head=head, fixed=fixed, folds=folds)
    training = FoldTraining(base, data, features, semantics, device)
    plan = SweepPlan.make(search, fixed, training, splits, seeds)
    for name, number in (("trials", trials), ("jobs", jobs)):
        if number is not None and number < 1:
            raise ValueError(f"{name}: expected 1 or more, got {number}")
    if sampler is None:
        ranges = any(isinstance(values, Range) for values in plan.space.values())
        sampler = "tpe" if ranges else "grid"
    if sampler not in get_args(Sampler):
        raise ValueError(f"sampler: expected one of {get_args(Sampler)}, got {sampler!r}")
    points = None
    wanted = trials or _TRIALS
    if sampler == "grid":
        points = [point for point in grid(plan.space) if point != plan.preset]
        wanted = min(trials or len(points) + 1, len(points) + 1)
    prune = points is None if prune is None else prune

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rule: dict[str, Any] = {"sampler": sampler, "sampler_seed": sampler_seed, "prune": prune}
    claim(out / "sweep.json", {"version": version("mcfa_fast"), **plan.identity, **rule})
    path = out / "journal.log"
    with closing(
        Journal(path, plan.space, preset=plan.preset, points=points, **rule)
    ) as journal:
        run = _Run(plan, journal, out, wanted, timeout, on_progress)
        run.work(jobs)
        return SweepResult(*run.write(), journal.importances(), plan.fold_classes)


@dataclass
class _Active:
    """A trial that is being run."""

    trial: Trial
    score: TrialScore
    seconds: float = 0.0
    ended: bool = False


@dataclass
class _Run:
    """Trials on their way through the workers."""

    plan: SweepPlan
    journal: Journal
    out: Path
    wanted: int
    timeout: float | None
    on_progress: Callable[[SweepProgress], None] | None
    active: dict[int, _Active] = field(default_factory=dict)

    def work(self, jobs: int) -> None:
        """Run what is missing of the wanted trials."""
        with closing(in_workers(self._runs(), self.plan.training, workers=jobs)) as results:
            for result in results:
                self._count(result)

    def write(self) -> tuple[list[TrialRow], TrialRow | None, RunConfig | None]:
        """Write the results of all trials so far; returns them, the winner and its run."""
        with self.journal.locked():  # what another process writes is not older than this
            return self._write()

    def _write(self) -> tuple[list[TrialRow], TrialRow | None, RunConfig | None]:
        rows = self.journal.rows()
        generalized = self.plan.training.base.task == "gzsl"
        table = trials_csv(rows, list(self.plan.space), self.plan.splits, generalized=generalized)
        write_text(self.out / "trials.csv", table)
        won = winner(rows)
        if won is None:
            return rows, None, None
        config = self.plan.training.config(won.options, self.plan.seeds[0])
        write_text(self.out / "best.json", config.model_dump_json(indent=2) + "\n")
        return rows, won, config

    def _runs(self) -> Iterator[FoldRun]:
        """Trainings in order, each asked for when a worker is free.

        A trial's trainings share the workers: the sampler then knows more about earlier trials
        than if each worker had a trial of its own.
        """
        for trial in self._trials():
            active = _Active(trial, TrialScore(self.plan.parts))
            self.active[trial.number] = active
            options = self.journal.options(trial)
            for step, part in enumerate(self.plan.parts):
                if active.ended:
                    break
                yield FoldRun(trial.number, step, part, options)

    def _trials(self) -> Iterator[Trial]:
        start = time.monotonic()
        yield from self.journal.unfinished()
        while self.timeout is None or time.monotonic() - start < self.timeout:
            with self.journal.locked():  # another process may begin the last one
                if len(self.journal.trials) >= self.wanted:
                    return
                trial = self.journal.begin()
            yield trial

    def _count(self, result: Finished) -> None:
        run: FoldRun = result.job
        active = self.active[run.trial]
        active.seconds += result.seconds
        if active.ended:  # by another training of the trial
            return
        if result.error == WORKER_DIED:
            active.ended = True  # but not in the journal, so that it is run again next time
            self._tell_progress(active, WORKER_DIED)
        elif result.error is not None:
            self._end(active, "failed", result.error)
        elif result.result is None:
            self._end(active, "pruned", "training diverged")
        else:
            for step, value in active.score.add(run.step, result.result):
                self.journal.report(active.trial, value, step)
            if active.score.complete:
                self._end(active, "complete")
            elif run.trial > 0 and active.trial.should_prune():
                self._end(active, "pruned", "below the median")
            else:
                self._tell_progress(active)

    def _end(self, active: _Active, state: str, note: str = "") -> None:
        active.ended = True
        trial, value = active.trial, None
        trial.set_user_attr("seconds", round(active.seconds, 3))
        trial.set_user_attr("note", note)
        if state == "complete":
            value = active.score.value()
            trial.set_user_attr("splits", active.score.splits())
            trial.set_user_attr("folds", active.score.folds())
        self.journal.end(trial, state, value)
        self.write()
        self._tell_progress(active, note if state == "failed" else None)

    def _tell_progress(self, active: _Active, failure: str | None = None) -> None:
        if self.on_progress is None:
            return
        rows = self.journal.rows()
        self.on_progress(
            SweepProgress(
                trials=sum(row.state not in ("unfinished", "running") for row in rows),
                of_trials=self.wanted,
                trainings=active.score.count,
                of_trainings=len(self.plan.parts),
                best=best_trial(rows),
                failure=failure,
            )
        )

