"""``mcfa-fast benchmark``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

import mcfa_fast as mf
from mcfa_fast.cli.common import (
    DataOption,
    DeviceOption,
    FeaturesOption,
    SemanticsOption,
    console,
    default_folder,
    errors_as_messages,
    fail,
    load_data,
    parse_seeds,
    parts,
)
from mcfa_fast.studies import (
    METHODS,
    Comparison,
    JobLog,
    JobResult,
    comparison_tables,
    plan,
    resolve_methods,
    resolve_splits,
    rows_csv,
    rows_of,
    run_jobs,
    to_markdown,
)
from mcfa_fast.experiments.compare import data_fingerprint, job_identity
from mcfa_fast.experiments.jobs import Job
from mcfa_fast.experiments.report import Table, check_against
from mcfa_fast.storage.checkpoint import write_atomically
from mcfa_fast.training.run_folder import claim

_GROUPS = ", ".join(dict.fromkeys(method.group for method in METHODS.values()))

_HEAD = """# {title}

Mean per-class accuracy in %, written by `mcfa-fast benchmark`. Hyperparameters, and for GZSL the
calibration, were chosen inside the seen classes of each split. Intervals are of the paired t-test
over splits.

"""


def benchmark(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    methods: Annotated[
        str,
        typer.Option(help=f"Methods or groups of them ({_GROUPS}), with commas."),
    ] = "closed-form",
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
        typer.Option(help="Classifier to compare with (default: the best baseline)."),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Compare methods on the same splits, each tuned inside the seen classes.

    Leaves results.csv, one line per run, and table.md: means over splits, and differences to one
    method with their confidence intervals. A killed comparison resumes; runs that failed are tried
    again. More methods, splits or seeds can be added later to the same folder. A folder is refused
    when its results are of other data, of another version, or of a method whose options have
    changed.
    """
    with errors_as_messages():
        dataset = load_data({"data": data, "features": features, "semantics": semantics})
        names = resolve_methods(parts(methods))
        chosen_splits = resolve_splits(dataset, parts(splits) if splits else dataset.split_names)
        planned = plan(names, chosen_splits, parts(tasks), parse_seeds(seeds))
        for split, task in {(job["split"], job["task"]) for job in planned}:
            dataset.split(split, generalized=task == "gzsl").check_testable()
        if not planned:
            raise ValueError("splits: expected at least one run, but the data has no splits")
        out = out or default_folder("benchmark", dataset.name, features, semantics)
        out.mkdir(parents=True, exist_ok=True)
        fingerprints = data_fingerprint(dataset)
        claim(out / "benchmark.json", {"version": mf.__version__, **fingerprints})
        log = JobLog(out / "jobs.jsonl", partial(job_identity, fingerprints))
        classifiers = [name + suffix for name in names for suffix in METHODS[name].rows]
        check_against(against, [*classifiers, *(row.classifier for row in rows_of(log.results))])
        work = Comparison(data, features, semantics, out / "runs", device)
        _run(planned, work, log, jobs)
        failed = [result for result in log.results if result.error is not None]
        rows = rows_of(log.results)
        tables = comparison_tables(rows, against)
        text = _HEAD.format(title=f"{dataset.name}: {data}") + to_markdown(tables)
        for name, content in (("results.csv", rows_csv(rows)), ("table.md", text)):
            write_atomically(out / name, lambda file, content=content: file.write(content.encode()))
        for table in tables:
            console.print(_rich(table))
        console.print(f"results are in {out}", highlight=False, soft_wrap=True)
        if failed:
            fail(f"{len(failed)} of {len(log.results)} runs failed; run again to retry them")


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
                console.print(f"[bold red]failed:[/] {name}\n{escape(result.error.rstrip())}")

        run_jobs(planned, work, log, workers=workers, on_result=show)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown
