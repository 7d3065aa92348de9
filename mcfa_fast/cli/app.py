"""The command line's subcommands, each in a module of its own."""

from __future__ import annotations

import typer

from mcfa_fast.cli import (
    add_class,
    benchmark,
    demo,
    describe,
    evaluate,
    export,
    info,
    predict,
    report,
    serve,
    sweep,
    train,
)
from mcfa_fast.cli.launch import leave_to_first

app = typer.Typer(
    name="mcfa-fast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Zero-shot classification: classify images of classes never seen in training.",
    epilog="Start with `mcfa-fast demo`, which needs no data. Exit codes: 0 success, 1 the data, "
    "a file or an option's value is bad, 2 wrong usage.",
)
_TOGETHER = ("train", "predict")
_WITHOUT_LAUNCHER = ("benchmark", "demo", "serve", "sweep")


@app.callback()
def _share_out(context: typer.Context) -> None:
    """Under torchrun, some commands are done by all processes, others by the first of them."""
    command = context.invoked_subcommand
    if command is not None and command not in _TOGETHER:
        leave_to_first(command, refused=command in _WITHOUT_LAUNCHER)


for command in (
    demo.demo,
    describe.describe,
    train.train,
    evaluate.evaluate,
    predict.predict,
    report.report,
    add_class.add_class,
    export.export,
    serve.serve,
    benchmark.benchmark,
    sweep.sweep,
    info.info,
):
    app.command()(command)
