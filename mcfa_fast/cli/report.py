"""``mcfa-fast report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mcfa_fast.cli.common import errors_as_messages, say, warn


def report(
    run_dirs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    data: Annotated[
        Optional[str], typer.Option(help="Where the runs' data lies now, if it has moved.")
    ] = None,
) -> None:
    """Write a self-contained HTML page about finished runs, to look at in a browser.

    Results, training curves, embedding map, seen-unseen curve, confusions, accuracy per class and
    settings of every run; for several runs, a comparison first.
    """
    with errors_as_messages():
        from mcfa_fast.reporting import write_report  # needs packages of an extra

        runs = write_report(run_dirs, output, data=data)
        for run in runs:
            for head, sentences in run.warnings.items():
                for sentence in sentences:
                    warn(f"{run.name}, {head}: {sentence}")
            if run.embeddings.missing:
                say(f"{run.name}: no embedding map. {run.embeddings.missing}")
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        say(f"{count} described in {output} ({output.stat().st_size / 1e6:.1f} MB)")
