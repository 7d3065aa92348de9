"""Running the command line within the tests' own process."""

from typer.testing import CliRunner

from mcfa_fast.cli import app

ONE_EPOCH = ["--set", "epochs=1"]
"""The shortest training of a system that is trained in epochs."""

MCFA = ["--system", "mcfa", *ONE_EPOCH, "--set", "softmax.epochs=1"]
"""The same of MCFA, which has several heads."""

SOLVED = ["--system", "eszsl"]
"""A system in closed form, which is trained at once."""


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
