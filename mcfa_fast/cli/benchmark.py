"""``mcfa-fast benchmark``."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from mcfa_fast.cli.common import (
    DataOption,
    DeviceOption,
    FeaturesOption,
    SemanticsOption,
    TransductiveOption,
    console,
    default_folder,
    errors_as_messages,
    fail,
    load_data,
    parse_seeds,
    parts,
    say,
)
from mcfa_fast.data import Dataset
from mcfa_fast.experiments.compare import (
    Comparison,
    data_fingerprint,
    job_identity,
    plan,
    resolve_splits,
)
from mcfa_fast.experiments.contestants import (
    Contestant,
    default_opponent,
    group_names,
    resolve_contestants,
)
from mcfa_fast.experiments.jobs import Job, JobLog, JobResult, run_jobs
from mcfa_fast.experiments.report import Table, check_against, comparison_tables, to_markdown
from mcfa_fast.experiments.table import rows_csv, rows_of
from mcfa_fast.storage import claim, write_text
from mcfa_fast.systems.registry import RECOMMENDED, find

_HEAD = """# {title}

Mean per-class accuracy in %, written by `mcfa-fast benchmark`. For every system, options and for
GZSL the calibration were chosen inside the seen classes of each split, on the same folds; where a
note says so, on the test rows instead. Chance is a uniform guess among the candidates. Differences
are to {opponent}; their intervals are of the paired t-test over splits.

"""

_TRANSDUCTIVE = """Where a title says transductive, all test images of a split were classified
together, as one set, beside the labelled training images; the strengths of that were chosen on the
same folds. Compare such results with each other only.

"""


def benchmark(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    systems: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="What to compare: systems, presets of one as 'mcfa:reference', groups "
            f"({', '.join(group_names())}) or 'all' systems.",
        ),
    ] = f"{RECOMMENDED},closed-form",
    splits: Annotated[
        Optional[str],
        typer.Option(
            help="Splits, with commas; a ratio as '20/10' is all its splits (default: all)."
        ),
    ] = None,
    tasks: Annotated[str, typer.Option(help="zsl, gzsl or both, with commas.")] = "zsl,gzsl",
    seeds: Annotated[str, typer.Option(help="Seeds of every random stream, with commas.")] = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, one thread each.")] = 1,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder of the results; it resumes there (default: below runs/)."),
    ] = None,
    against: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="What differences are to, as the tables call it: SYSTEM or SYSTEM:PRESET, where "
            f"it has several heads with /HEAD (default: {default_opponent()}, the recommended "
            "system).",
        ),
    ] = None,
    transductive: TransductiveOption = False,
    device: DeviceOption = "cpu",
) -> None:
    """Compare systems on the same splits, all tuned alike inside the seen classes.

    Leaves results.csv, one line per run and head, and table.md: means over splits beside chance,
    and differences to one system with their confidence intervals. A killed comparison resumes; runs
    that failed are tried again. More systems, splits or seeds can be added later to the same
    folder. The same command on another machine that shares the folder helps with it. A folder is
    refused when its results are of other data, of another version, or of a system whose options
    have changed.

    With --transductive every system's test images are classified together, after the same
    refinement with strengths chosen on the same folds; the tables of such results are of their own.
    """
    with errors_as_messages():
        dataset = load_data({"data": data, "features": features, "semantics": semantics})
        contestants = _suited(resolve_contestants(parts(systems)), dataset)
        chosen_splits = resolve_splits(dataset, parts(splits) if splits else dataset.split_names)
        planned = plan(
            contestants,
            chosen_splits,
            parts(tasks),
            parse_seeds(seeds),
            transductive=transductive,
        )
        for split, task in {(job["split"], job["task"]) for job in planned}:
            dataset.split(split, generalized=task == "gzsl").check_testable()
        if not planned:
            raise ValueError(
                "systems, splits, tasks, seeds: expected at least one run, but there is none; has "
                "the data splits?"
            )
        mode = "transductive" if transductive else None
        out = out or default_folder("benchmark", dataset.name, features, semantics, mode)
        out.mkdir(parents=True, exist_ok=True)
        fingerprints = data_fingerprint(dataset)
        claim(out / "benchmark.json", {"version": version("mcfa_fast"), **fingerprints})
        log = JobLog(out / "jobs.jsonl", partial(job_identity, fingerprints))
        labels = [one.label(head) for one in contestants for head in find(one.system).heads]
        check_against(against, [*labels, *(row.label for row in rows_of(log.results))])
        work = Comparison(data, features, semantics, out / "runs", device)
        _run(planned, work, log, jobs)
        failed = [result for result in log.results if result.error is not None]
        rows = rows_of(log.results)
        tables = comparison_tables(rows, against)
        opponent = against or default_opponent()
        text = _HEAD.format(title=f"{dataset.name}: {data}", opponent=opponent)
        if any(row.mode == "transductive" for row in rows):
            text += _TRANSDUCTIVE
        write_text(out / "results.csv", rows_csv(rows))
        write_text(out / "table.md", text + to_markdown(tables))
        for table in tables:
            console.print(_rich(table))
        if all(row.label != opponent for row in rows):
            say(f"no differences: there are no results of {opponent}; --against names another")
        say(f"results are in {out}")
        if failed:
            fail(f"{len(failed)} of {len(log.results)} runs failed; run again to retry them")


def _suited(contestants: list[Contestant], dataset: Dataset) -> list[Contestant]:
    """Those that work with data of these widths; the others are named, with the reason."""
    widths = dataset.features.shape[1], dataset.semantics.shape[1]
    reasons = {one: find(one.system).system.unsuited(*widths) for one in contestants}
    for one, reason in reasons.items():
        if reason:
            say(f"{one.name} is left out: {reason}")
    return [one for one in contestants if not reasons[one]]


def _run(planned: list[Job], work: Comparison, log: JobLog, workers: int) -> None:
    """Runs what is not finished yet, with a progress bar and a message per failure."""
    done = sum(map(log.finished, planned))
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(planned), completed=done)

        def show(result: JobResult) -> None:
            progress.advance(bar)
            if result.error is not None:
                name = " ".join(map(str, result.job.values()))
                console.print(f"failed: {name}\n{result.error.rstrip()}", style="red")

        run_jobs(planned, work, log, workers=workers, on_result=show)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown
