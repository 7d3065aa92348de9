"""Running the command line within the tests' own process."""

from typer.testing import CliRunner

from mcfa_fast.cli import app

ONE_EPOCH = ["--set", "epochs=1", "--set", "classifier_epochs=1"]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
