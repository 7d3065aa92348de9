"""``mcfa-fast add-class``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer

from mcfa_fast.cli.common import (
    CLASSIFIER_FILE,
    EncoderOption,
    RunArgument,
    console,
    errors_as_messages,
    load_classifier,
    say,
)
from mcfa_fast.data.files import read_npy
from mcfa_fast.encoders.sentences import DEFAULT_ENCODER, SentenceEncoder
from mcfa_fast.export.update import add_class as add_to_classifier
from mcfa_fast.export.update import alone_with, replace_saved


def add_class(
    run_dir: RunArgument,
    name: Annotated[str, typer.Argument(help="Name of the new class.")],
    sentence: Annotated[
        Optional[list[str]],
        typer.Option(help="A sentence about how the class looks; repeatable."),
    ] = None,
    encoder: EncoderOption = DEFAULT_ENCODER,
    vector: Annotated[
        Optional[Path],
        typer.Option(help="Instead of sentences: a .npy file with the class's descriptor [A]."),
    ] = None,
    semantics_row: Annotated[
        Optional[int],
        typer.Option(min=0, help="Which row to take, if the file has several: [M, A]."),
    ] = None,
) -> None:
    """Add a class to a run from a description; it is classified from then on.

    The system stays as it is and its heads are fitted anew. The classifier as it was is kept beside
    the new one, as classifier.previous.pt; rename it to undo the last addition.
    """
    if bool(sentence) == (vector is not None):
        raise typer.BadParameter("give either --sentence or --vector", param_hint="--sentence")
    if semantics_row is not None and vector is None:
        raise typer.BadParameter("it needs --vector", param_hint="--semantics-row")
    with errors_as_messages(), alone_with(run_dir / CLASSIFIER_FILE):
        classifier = load_classifier(run_dir)
        with console.status("Fitting the heads"):
            if vector is None:
                model = SentenceEncoder(encoder)
                index = add_to_classifier(classifier, name, sentence or [], encoder=model)
            else:
                descriptor = _read_descriptor(vector, semantics_row)
                index = add_to_classifier(classifier, name, descriptor)
            previous = replace_saved(classifier, run_dir / CLASSIFIER_FILE)
        say(
            f"class {name!r} added with index {index}; {len(classifier.classes_)} classes are told "
            f"apart now. The classifier before is {previous}"
        )


def _read_descriptor(path: Path, row: int | None) -> np.ndarray:
    descriptors = read_npy(path)
    if descriptors.ndim == 2 and row is None and len(descriptors) != 1:
        raise ValueError(
            f"{path}: expected one descriptor [A], got {list(descriptors.shape)}; choose a row "
            "with --semantics-row"
        )
    if descriptors.ndim == 1:
        descriptors = descriptors[None]
    if descriptors.ndim != 2:
        raise ValueError(f"{path}: expected a descriptor [A], got {list(descriptors.shape)}")
    if (row or 0) >= len(descriptors):
        raise ValueError(f"--semantics-row: {path} has rows 0..{len(descriptors) - 1}, got {row}")
    return descriptors[row or 0]
