"""``mcfa-fast predict``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, BinaryIO, Optional

import numpy as np
import typer

import mcfa_fast as mf
from mcfa_fast.cli.common import DeviceOption, Method, console, errors_as_messages, load_classifier
from mcfa_fast.data.files import read_npy
from mcfa_fast.training.checkpoint import write_atomically


def predict(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    features: Annotated[Path, typer.Argument(help="Features to classify: a .npy file [N, F].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")],
    method: Annotated[Method, typer.Option(help="Which classifier.")] = Method.softmax,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each row.")] = 1,
    calibration: Annotated[
        Optional[float], typer.Option(help="Subtract this from the scores of seen classes.")
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Classify a file of features: writes row, rank, class and score to a CSV file."""
    with errors_as_messages():
        classifier = load_classifier(run_dir, device)
        classifier.set_params(method=method.value)
        if calibration is not None:
            classifier.set_params(calibration=calibration)
        rows = read_npy(features, memory_map=True)
        write_atomically(output, lambda file: _write_predictions(file, classifier, rows, top))
        console.print(f"{len(rows)} rows classified with {method.value}, written to {output}")


def _write_predictions(
    file: BinaryIO, classifier: mf.MCFAClassifier, features: np.ndarray, top: int
) -> None:
    """The CSV file of `predict`, a chunk of rows at a time."""
    chunk = 65536
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(["row", "rank", "class", "score"])
    for start in range(0, len(features), chunk):
        scores = classifier.predict_proba(features[start : start + chunk])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        for row, columns in enumerate(best):
            for rank, column in enumerate(columns, 1):
                name = classifier.class_names_[classifier.classes_[column]]
                writer.writerow([start + row, rank, name, f"{scores[row, column]:.6g}"])
    text.detach()  # flushes; the file itself stays open for the caller
