"""``mcfa-fast describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mcfa_fast.cli.common import EncoderOption, errors_as_messages, say
from mcfa_fast.encoders.describe import describe_folder
from mcfa_fast.encoders.sentences import DEFAULT_ENCODER, SentenceEncoder


def describe(
    data: Annotated[Path, typer.Argument(help="A dataset folder with class_names.json.")],
    sentences: Annotated[
        Optional[Path],
        typer.Option(
            help='JSON file {"class name": ["sentence", ...], ...} about how the classes look '
            "(default: class_sentences.json in the folder)."
        ),
    ] = None,
    encoder: EncoderOption = DEFAULT_ENCODER,
    name: Annotated[
        str, typer.Option(help="Name of the descriptors, for --semantics of other commands.")
    ] = "text",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace descriptors of that name.")
    ] = False,
) -> None:
    """Write the descriptors of all classes into semantics.npz, from sentences about each.

    Other descriptors in the file stay.
    """
    with errors_as_messages():
        path = sentences or data / "class_sentences.json"
        try:
            descriptors = describe_folder(
                data, path, SentenceEncoder(encoder), name=name, overwrite=overwrite
            )
        except FileExistsError as error:
            raise FileExistsError(f"{error}; replace them with --overwrite") from None
        say(
            f"{len(descriptors)} classes described by {descriptors.shape[1]} values each, written "
            f"to {data / 'semantics.npz'} as {name!r}"
        )
