"""``mcfa-fast export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

from mcfa_fast.cli.common import (
    CLASSIFIER_FILE,
    CalibrationOption,
    ExportFormat,
    HeadOption,
    RunArgument,
    errors_as_messages,
    load_classifier,
    say,
)
from mcfa_fast.export import Format, export_classifier
from mcfa_fast.export.output import check_output


def export(
    run_dir: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    format: Annotated[
        Optional[ExportFormat],
        typer.Option(
            help="Default: by the file's name, .pt2 export, .onnx ONNX, else TorchScript."
        ),
    ] = None,
    head: HeadOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Write a run's classifier as one file for TorchScript, C++, torch.export or ONNX Runtime.

    It takes raw float32 features [N, F] and gives scores [N, K]; its metadata names the classes.
    """
    with errors_as_messages():
        check_output(output, run_dir / CLASSIFIER_FILE, name="--output")
        classifier = load_classifier(run_dir, head=head, calibration=calibration)
        kind = None if format is None else format.value
        metadata = export_classifier(classifier, output, format=cast("Format | None", kind))
        say(
            f"{metadata.system}, head {metadata.head!r}, of {len(metadata.class_names)} classes "
            f"over {metadata.features} features, written to {output}"
        )
