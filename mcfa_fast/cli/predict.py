"""``mcfa-fast predict``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mcfa_fast.cli.common import (
    CLASSIFIER_FILE,
    CalibrationOption,
    DeviceOption,
    HeadOption,
    RunArgument,
    console,
    errors_as_messages,
    load_classifier,
    say,
)
from mcfa_fast.cli.launch import launched
from mcfa_fast.export.output import check_output
from mcfa_fast.export.stream import classify_file


class Output(str, Enum):
    csv = "csv"
    npy = "npy"


def predict(
    run_dir: RunArgument,
    features: Annotated[Path, typer.Argument(help="Features to classify: a .npy file [N, F].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    head: HeadOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each row.")] = 1,
    format: Annotated[
        Output,
        typer.Option(help="csv: row, rank, class, score; npy: records (class, score) [N, top]."),
    ] = Output.csv,
    calibration: CalibrationOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Classify a file of features of any size, a few MiB of it at a time.

    Under torchrun, the processes share the rows; the first one writes the same file as it would
    alone.
    """
    with errors_as_messages(), launched(device) as (device, group):
        check_output(output, run_dir / CLASSIFIER_FILE, features, name="--output")
        classifier = load_classifier(run_dir, device, head=head, calibration=calibration)
        start = time.perf_counter()
        with _row_progress() as progress:
            rows = classify_file(
                classifier,
                features,
                output,
                top=top,
                format=format.value,
                progress=progress,
                group=group,
            )
        rate = rows / (time.perf_counter() - start)
        say(
            f"{rows} rows classified with head {classifier.head_.name!r}, {rate:.3g} rows/s, "
            f"written to {output}"
        )


@contextmanager
def _row_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over rows, on a terminal only."""
    if not console.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
