"""``mcfa-fast predict``."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from mcfa_fast.cli.common import (
    CLASSIFIER_FILE,
    CalibrationOption,
    DeviceOption,
    HeadOption,
    RunArgument,
    TransductiveOption,
    errors_as_messages,
    image_progress,
    load_classifier,
    load_data,
    read_source,
    say,
    say_strengths,
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
    transductive: TransductiveOption = False,
    data: Annotated[
        Optional[str],
        typer.Option(help="With --transductive: where the run's data lies now, if it has moved."),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Classify a file of features of any size, a few MiB of it at a time.

    Under torchrun, the processes share the rows; the first one writes the same file as it would
    alone.

    With --transductive all rows are classified together, as one set of images, beside the labelled
    images that the run was trained on: more accurate where the set is large and mixed, but a
    different set gives different answers.
    """
    with errors_as_messages(), launched(device) as (device, group):
        if transductive and group is not None:
            raise ValueError("--transductive: expected one process, for a set is classified whole")
        check_output(output, run_dir / CLASSIFIER_FILE, features, name="--output")
        classifier = load_classifier(run_dir, device, head=head, calibration=calibration)
        start = time.perf_counter()
        if data is not None and not transductive:
            raise ValueError("--data: expected with --transductive only")
        together = None
        if transductive:
            source = read_source(run_dir)
            dataset = load_data(source | ({"data": data} if data else {}))
            generalized = classifier.run_.task == "gzsl"
            train = dataset.split(source["split"], generalized=generalized).train
            together = classifier.transductive(dataset.rows(train), dataset.labels[train])
            say_strengths(together)
        with image_progress("rows") as progress:
            rows = classify_file(
                classifier,
                features,
                output,
                top=top,
                format=format.value,
                progress=progress,
                group=group,
                together=together,
            )
        rate = rows / (time.perf_counter() - start)
        say(
            f"{rows} rows classified with head {classifier.head_.name!r}, {rate:.3g} rows/s, "
            f"written to {output}"
        )
