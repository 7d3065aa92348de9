"""``mcfa-fast export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mcfa_fast.cli.common import (
    CalibrationOption,
    ExportFormat,
    MethodOption,
    RunArgument,
    console,
    errors_as_messages,
    load_classifier,
)
from mcfa_fast.export import export_classifier


def export(
    run_dir: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    format: Annotated[
        Optional[ExportFormat],
        typer.Option(
            help="Default: by the file's name, .pt2 export, .onnx ONNX, else TorchScript."
        ),
    ] = None,
    method: MethodOption = None,
    calibration: CalibrationOption = None,
) -> None:
    """Write a run's classifier as one file for TorchScript, C++, torch.export or ONNX Runtime.

    It takes raw float32 features [N, F] and gives scores [N, K]; its metadata names the classes.
    """
    with errors_as_messages():
        classifier = load_classifier(run_dir, method=method, calibration=calibration)
        kind = None if format is None else format.value
        metadata = export_classifier(classifier, output, format=kind)
        console.print(
            f"{metadata.method} classifier of {len(metadata.class_names)} classes over "
            f"{metadata.features} features, written to {output}",
            highlight=False,
            soft_wrap=True,
        )
