"""``mcfa-fast sweep``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mcfa_fast.cli.common import (
    DataOption,
    DeviceOption,
    FeaturesOption,
    Method,
    Mode,
    Preset,
    SemanticsOption,
    console,
    default_folder,
    errors_as_messages,
    fail,
    load_data,
    parse_seeds,
    parse_settings,
    parts,
)
from mcfa_fast.selection.folds_old import FOLDS
from mcfa_fast.experiments.space import Choice, Range, parse_choice, parse_range
from mcfa_fast.experiments.sweep import SweepProgress, SweepResult
from mcfa_fast.experiments.sweep import sweep as run_sweep

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
    task: Annotated[Preset, typer.Option(help="What to tune for.")] = Preset.zsl,
    mode: Annotated[Mode, typer.Option(help="Preset of all other options.")] = Mode.paper,
    method: Annotated[
        Optional[Method],
        typer.Option(
            help="Classifier to judge by (default: nearest for --mode best, else softmax)."
        ),
    ] = None,
    search: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="KEY=LOW:HIGH[:log|:STEP]",
            help="A range of values of an option of MCFAConfig; repeatable.",
        ),
    ] = None,
    choose: Annotated[
        Optional[list[str]],
        typer.Option(metavar="KEY=A,B,...", help="Values of an option; repeatable."),
    ] = None,
    settings: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="KEY=VALUE", help="Fix an option; repeatable."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0",
    folds: Annotated[int, typer.Option(help="Parts of the seen classes held out in turn.")] = FOLDS,
    sampler: Annotated[
        Optional[SamplerName],
        typer.Option(help="How to choose trials (default: tpe, or grid if nothing has a range)."),
    ] = None,
    sampler_seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    trials: Annotated[
        Optional[int], typer.Option(help="Number of trials in all (default: 50; the whole grid).")
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
    """Search for the options of MCFA that serve held-out seen classes best.

    Test rows are never used. Leaves trials.csv, one line per trial, and best.json for
    `mcfa-fast train --config`. A killed sweep resumes, and goes on with a higher --trials.
    """
    with errors_as_messages():
        space = _space(search or [], choose or [])
        if out is None:
            name = load_data({"data": data, "features": features, "semantics": semantics}).name
            out = default_folder("sweep", name, features, semantics, task.value, mode.value)
        with _shown() as show:
            result = run_sweep(
                out,
                space,
                data=data,
                features=features,
                semantics=semantics,
                splits=parts(splits) if splits else None,
                task=task.value,
                mode=mode.value,
                method=method and method.value,
                fixed=parse_settings(settings or []),
                seeds=parse_seeds(seeds),
                folds=folds,
                sampler=sampler and sampler.value,
                sampler_seed=sampler_seed,
                trials=trials,
                prune=prune,
                jobs=jobs,
                timeout=timeout,
                device=device,
                on_progress=show,
            )
        _report(result, out, list(space))


def _space(ranges: list[str], choices: list[str]) -> dict[str, Range | Choice]:
    found = [*map(parse_range, ranges), *map(parse_choice, choices)]
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
                text += f", best {100 * state.best.value:.1f}% (trial {state.best.number})"
            progress.update(bar, completed=state.trials, total=state.of_trials, description=text)
            if state.failure is not None:
                console.print(f"[bold red]a trial failed:[/] {escape(state.failure.rstrip())}")

        yield show


def _report(result: SweepResult, out: Path, options: list[str]) -> None:
    complete = [row for row in result.rows if row.state == "complete"]
    best = sorted(complete, key=lambda row: -row.value)[:_BEST_SHOWN]
    table = Table(title=f"Best of {len(complete)} complete trials: validation score in %")
    for column in ("trial", "score", *options):
        table.add_column(column, justify="right")
    for row in best:
        values = [_text(row.options[key]) for key in options]
        table.add_row(str(row.number), f"{100 * row.value:.1f}", *values)
    console.print(table)
    if result.importances:
        table = Table("option", title="Share in the variance of scores")
        table.add_column("%", justify="right")
        for key, share in result.importances.items():
            table.add_row(key, f"{100 * share:.0f}")
        console.print(table)
    states = Counter(row.state for row in result.rows)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    console.print(f"trials: {counts}; results are in {out}", highlight=False, soft_wrap=True)
    if states["unfinished"]:
        fail(f"{states['unfinished']} trials are unfinished; run again to run them again")
    if result.best is None:
        fail(f"no trial is complete, see {out / 'trials.csv'}")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
