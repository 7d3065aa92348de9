"""``mcfa-fast demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

import mcfa_fast as mf
from mcfa_fast.cli.common import console, errors_as_messages
from mcfa_fast.cli.train import train_and_report


def demo(
    run_dir: Annotated[
        Optional[Path], typer.Option(help="Keep the runs here (default: a temporary folder).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="One epoch only, to see it work.")
    ] = False,
) -> None:
    """Train on seven handwritten digits and recognise the other three from their description.

    Runs both tasks: zero-shot (ZSL), where only unseen digits are candidates, and generalized
    zero-shot (GZSL), where all ten are.
    """
    with errors_as_messages(), tempfile.TemporaryDirectory() as temporary:
        digits = mf.data.load("digits")
        folder = run_dir or Path(temporary)
        for task in ("zsl", "gzsl"):
            # The paper's balance between the reconstruction, a sum over features, and the KL term,
            # kept for 64 pixels instead of 512 features.
            config = mf.MCFAConfig.paper(
                task, kl_weight=64 / 512, **({"epochs": 1} if quick else {})
            )
            split = digits.split("7/3:0", generalized=task == "gzsl")
            names = ", ".join(digits.class_names[c] for c in split.unseen_classes)
            console.print(f"\n[bold]{task.upper()}[/]: digits {names} are never seen in training.")
            train_and_report(config, digits, split.name, folder / task, "cpu")
