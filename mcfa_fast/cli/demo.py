"""``mcfa-fast demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.cli.common import errors_as_messages, say
from mcfa_fast.cli.train import train_and_report
from mcfa_fast.data import load


def demo(
    run_dir: Annotated[
        Optional[Path], typer.Option(help="Keep the runs here (default: a temporary folder).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="One epoch only, to see it work.")
    ] = False,
) -> None:
    """Train on seven handwritten digits and recognise the other three from their description.

    Runs both tasks with the recommended system: zero-shot (ZSL), where only unseen digits are
    candidates, and generalized zero-shot (GZSL), where all ten are.
    """
    changes = {"epochs": 1} if quick else {}
    source = {"data": "digits", "features": None, "semantics": None}
    with errors_as_messages(), tempfile.TemporaryDirectory() as temporary:
        digits = load("digits")
        for task in ("zsl", "gzsl"):
            config = RunConfig.of(task=task, options=changes)
            split = digits.split("7/3:0", generalized=task == "gzsl")
            names = ", ".join(digits.class_names[c] for c in split.unseen_classes)
            say(f"\n{task.upper()}: digits {names} are never seen in training.")
            folder = (run_dir or Path(temporary)) / task
            train_and_report(config, digits, split.name, folder, "cpu", source, changes)
        if run_dir is not None:
            say(f"Everything about the runs is in {run_dir / 'zsl'} and {run_dir / 'gzsl'}")
