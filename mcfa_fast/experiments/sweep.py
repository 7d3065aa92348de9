"""Search for hyperparameters of MCFA on held-out seen classes, over many runs at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mcfa_fast import __version__
from mcfa_fast.systems.mcfa.config import MCFAConfig, Task
from mcfa_fast.classifiers.heads_old import Method
from mcfa_fast.selection.folds_old import FOLDS
from mcfa_fast.experiments.jobs import WORKER_DIED, Finished, in_workers
from mcfa_fast.experiments.space import Range, Space, grid
from mcfa_fast.experiments.sweep_plan import SweepPlan, base_config
from mcfa_fast.experiments.trial_score import FoldRun, FoldTraining, TrialScore
from mcfa_fast.experiments.trials import TrialRow, best_trial, trials_csv
from mcfa_fast.storage.checkpoint import write_atomically
from mcfa_fast.training.run_folder import claim

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
        rows: all trials.
        best: configuration of the best trial, with the first seed; None when none is complete.
        importances: share of every option in the variance of the values; empty when unknown.
    """

    rows: list[TrialRow]
    best: MCFAConfig | None
    importances: dict[str, float]


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
    task: Task = "zsl",
    mode: str = "paper",
    method: Method | None = None,
    fixed: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    folds: int = FOLDS,
    sampler: Sampler | None = None,
    sampler_seed: int = 0,
    trials: int | None = None,
    prune: bool | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    device: str = "cpu",
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> SweepResult:
    """Try configurations of MCFA, each judged by cross-validation over classes.

    For every split and seed, the seen classes are divided into folds; each fold in turn plays the
    unseen classes. A trial's value is the mean over splits and seeds of its mean accuracy among
    the held-out classes, or for "gzsl" of the highest harmonic mean that one calibration reaches
    on all folds. No test row of a split is looked at for that split. Several splits share classes,
    though: where the chosen configuration must know nothing of a split's unseen classes, sweep
    this split alone.

    The folder `out` gets ``journal.log`` (Optuna's), ``trials.csv`` and ``best.json``. The same
    call resumes a killed sweep; a higher number of trials goes on with it.

    Args:
        out: folder of the sweep.
        search: options of :class:`~mcfa_fast.systems.mcfa.config.MCFAConfig` that vary, by name.
        data, features, semantics: see :func:`mcfa_fast.data.load`.
        splits: names of splits or ratios; None is all splits of the data.
        task: conventional or generalized.
        mode: preset of the other options. Its ``selection="test"`` becomes "last".
        method: which classifier is judged; None is the one that the preset is meant for.
        fixed: options that differ from the preset.
        seeds: seeds of every random stream; each is a training of its own.
        folds: number of folds; fewer where there are too few classes.
        sampler: None is "tpe" when something has a range, else "grid".
        sampler_seed: seed of the sampler.
        trials: number of trials in all; None is the whole grid, or 50.
        prune: stop trials whose running mean is below the median of the others; None does unless
            there is a grid.
        jobs: number of worker processes, with one thread each. A script that calls this needs the
            usual ``if __name__ == "__main__":`` of programs that start processes.
        timeout: begin no trial after so many seconds; those that have begun are finished.
        device: where to train.
        on_progress: called after each training.

    Raises:
        ImportError: without Optuna.
        ValueError: on an option that is unknown or out of its bounds, too few classes, or a folder
            that belongs to another sweep or in which one is running.
    """
    from mcfa_fast.experiments.journal import Journal, exclusive  # needs Optuna

    fixed = fixed or {}
    base = base_config(task, mode, fixed)
    method = method or base.recommended_method
    training = FoldTraining(base, data, features, semantics, folds, method, device)
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
        points = grid(plan.space)
        wanted = min(trials or len(points), len(points))
    prune = points is None if prune is None else prune

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        rule = {"sampler": sampler, "sampler_seed": sampler_seed, "prune": prune}
        claim(out / "sweep.json", {"version": __version__, **plan.identity, **rule})
        journal = Journal(out / "journal.log", plan.space, points=points, **rule)
        run = _Run(plan, journal, out, wanted, timeout, on_progress)
        run.work(jobs)
        return SweepResult(*run.write(), journal.importances())


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

    def write(self) -> tuple[list[TrialRow], MCFAConfig | None]:
        """Write the results of all trials so far; returns them, and the best configuration."""
        rows = self.journal.rows()
        generalized = self.plan.training.base.task == "gzsl"
        table = trials_csv(rows, list(self.plan.space), self.plan.splits, generalized=generalized)
        _write(self.out / "trials.csv", table)
        best = best_trial(rows)
        config = best and self.plan.training.config(best.options, self.plan.seeds[0])
        if config is not None:
            _write(self.out / "best.json", config.model_dump_json(indent=2) + "\n")
        return rows, config

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
        while len(self.journal.trials) < self.wanted:
            if self.timeout is not None and time.monotonic() - start >= self.timeout:
                return
            yield self.journal.begin()

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
            elif active.trial.should_prune():
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
        self.journal.end(trial, state, value)
        self.write()
        self._tell_progress(active, note if state == "failed" else None)

    def _tell_progress(self, active: _Active, failure: str | None = None) -> None:
        if self.on_progress is None:
            return
        rows = self.journal.rows()
        self.on_progress(
            SweepProgress(
                trials=sum(row.state != "unfinished" for row in rows),
                of_trials=self.wanted,
                trainings=active.score.count,
                of_trainings=len(self.plan.parts),
                best=best_trial(rows),
                failure=failure,
            )
        )


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
