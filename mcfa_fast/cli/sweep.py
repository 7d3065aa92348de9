"""``mcfa-fast sweep``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mcfa_fast.cli.common import (
    DataOption,
    DeviceOption,
    FeaturesOption,
    HeadOption,
    PresetOption,
    SemanticsOption,
    SettingsOption,
    SystemOption,
    Task,
    TaskOption,
    console,
    default_folder,
    errors_as_messages,
    fail,
    load_data,
    parse_seeds,
    parse_settings,
    parts,
    say,
)
from mcfa_fast.experiments.space import Choice, Range, parse_choice, parse_range
from mcfa_fast.experiments.sweep import SweepProgress, SweepResult
from mcfa_fast.experiments.sweep import sweep as run_sweep
from mcfa_fast.experiments.trials import TrialRow, best_trial
from mcfa_fast.systems.registry import RECOMMENDED

_BEST_SHOWN = 5


class SamplerName(str, Enum):
    tpe = "tpe"
    grid = "grid"
    random = "random"


def sweep(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    splits: Annotated[
        Optional[str],
        typer.Option(
            help="Splits, with commas; a ratio as '20/10' is all its splits (default: all)."
        ),
    ] = None,
    system: SystemOption = None,
    task: TaskOption = None,
    preset: PresetOption = None,
    head: HeadOption = None,
    search: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="KEY=LOW:HIGH[:log|:STEP]",
            help="A range of values of an option, by name as --set takes it; repeatable.",
        ),
    ] = None,
    choose: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=A,B,...", help="Values of an option; repeatable."),
    ] = None,
    settings: SettingsOption = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0",
    folds: Annotated[
        Optional[int],
        typer.Option(help="Parts of the seen classes held out in turn (default: the preset's)."),
    ] = None,
    sampler: Annotated[
        Optional[SamplerName],
        typer.Option(help="How to choose trials (default: tpe, or grid if nothing has a range)."),
    ] = None,
    sampler_seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    trials: Annotated[
        Optional[int],
        typer.Option(help="Trials in all, that of the preset included (default: 50; the grid)."),
    ] = None,
    prune: Annotated[
        Optional[bool],
        typer.Option(
            "--prune/--no-prune",
            metavar="",
            help="Stop trials that do worse than the median (default: unless there is a grid).",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at once, one thread each.")] = 1,
    timeout: Annotated[
        Optional[float], typer.Option(help="Begin no trial after so many seconds.")
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of the sweep; it resumes there (default: below runs/)."),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Search for the options of a system that serve held-out seen classes best.

    Test rows are never used. Trial 0 is the preset itself; another wins only when it is ahead by
    more than its standard error over the folds. Leaves trials.csv, one line per trial, and
    best.json, the winner, for `mcfa-fast train --config`. A killed sweep resumes, and goes on with
    a higher --trials. The same command on another machine that shares the folder helps with it.
    """
    with errors_as_messages():
        space = _space(search or [], choose or [])
        name, goal = system or RECOMMENDED, (task or Task.zsl).value
        if out is None:
            source = {"data": data, "features": features, "semantics": semantics}
            folder = load_data(source).name, features, semantics, name, preset, goal, head
            out = default_folder("sweep", *folder)
        with _shown() as show:
            result = run_sweep(
                out,
                space,
                data=data,
                features=features,
                semantics=semantics,
                splits=parts(splits) if splits else None,
                system=name,
                task=cast(Any, goal),
                preset=preset,
                head=head,
                fixed=parse_settings(settings),
                seeds=parse_seeds(seeds),
                folds=folds,
                sampler=None if sampler is None else cast(Any, sampler.value),
                sampler_seed=sampler_seed,
                trials=trials,
                prune=prune,
                jobs=jobs,
                timeout=timeout,
                device=device,
                on_progress=show,
            )
        _report(result, out, goal)


def _space(ranges: list[str], choices: list[str]) -> dict[str, Range | Choice]:
    found: list[tuple[str, Range | Choice]] = [
        *map(parse_range, ranges),
        *map(parse_choice, choices),
    ]
    names = [name for name, _ in found]
    if not found:
        raise ValueError("expected --search or --choose, so that there is something to tune")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]}: expected one --search or --choose, got {len(twice)}")
    return dict(found)


@contextmanager
def _shown() -> Iterator[Callable[[SweepProgress], None]]:
    """A line of progress on a terminal, and a message per failure; gives what updates it."""
    columns = (
        TextColumn("trials"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def show(state: SweepProgress) -> None:
            text = f"training {state.trainings}/{state.of_trainings}"
            if state.best is not None:
                text += f", best {100 * state.best.outcome[0]:.1f}% (trial {state.best.number})"
            progress.update(bar, completed=state.trials, total=state.of_trials, description=text)
            if state.failure is not None:
                console.print(f"a trial failed: {state.failure.rstrip()}", style="red")

        yield show


def _report(result: SweepResult, out: Path, task: str) -> None:
    complete = [row for row in result.rows if row.state == "complete"]
    if complete:
        console.print(_best_trials(result, complete, task))
        say(_verdict(result))
    if result.importances:
        table = Table("option", title="Share in the variance of scores")
        table.add_column("%", justify="right")
        for key, share in result.importances.items():
            table.add_row(key, f"{100 * share:.0f}")
        console.print(table)
    states = Counter(row.state for row in result.rows)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    say(f"trials: {counts}; results are in {out}")
    if states["unfinished"]:
        fail(f"{states['unfinished']} trials are unfinished; run again to run them again")
    if not complete:
        fail(f"no trial is complete, see {out / 'trials.csv'}")


def _best_trials(result: SweepResult, complete: list[TrialRow], task: str) -> Table:
    """The preset, and the best of the others."""
    low, high = min(result.fold_classes), max(result.fold_classes)
    among = str(low) if low == high else f"{low} to {high}"
    measure = {
        "zsl": f"accuracy in % among {among} held-out classes",
        "gzsl": f"harmonic mean in % among all {among} seen classes, some of them held out",
    }[task]
    table = Table(title=f"Best of {len(complete)} complete trials: {measure}")
    options = list(complete[0].options)
    for column in ("trial", "score", "± s.e.", *options):
        table.add_column(column, justify="right")
    others = [row for row in complete if row.number > 0]
    best = sorted(others, key=lambda row: -row.outcome[0])[:_BEST_SHOWN]
    for row in [row for row in complete if row.number == 0] + best:
        name = "preset" if row.number == 0 else str(row.number)
        value, error = row.outcome
        values = [_text(row.options[key]) for key in options]
        table.add_row(name, f"{100 * value:.1f}", f"{100 * error:.1f}", *values)
    return table


def _verdict(result: SweepResult) -> str:
    """Who wins, and why."""
    preset, winner = result.rows[0], result.winner
    best = best_trial(result.rows)
    if best is None or winner is None:
        return "the preset is not finished, so that nobody wins yet"
    if preset.state != "complete":
        return f"trial {winner.number} wins: the preset is {preset.state}"
    if best.number == 0:
        return "the preset wins: no trial is ahead of it"
    value, spread = best.outcome
    lead = f"ahead by {100 * (value - preset.outcome[0]):.1f} points"
    error = f"its standard error over folds, {100 * spread:.1f}"
    if winner.number == 0:
        return f"the preset stays: trial {best.number} is {lead}, no more than {error}"
    return f"trial {winner.number} wins: it is {lead}, more than {error}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
