"""The accuracy studies: that every command of their scripts is one of today."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.cli import app
from mcfa_fast.cli.common import parse_settings
from mcfa_fast.experiments.contestants import resolve_contestants
from mcfa_fast.experiments.space import parse_choice

COMMANDS = typer.main.get_command(app).commands
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

RECORDING = """
import json, os, pathlib, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
folder.mkdir(parents=True)
for name in ("table.md", "results.csv", "trials.csv"):
    (folder / name).write_text("")
"""


@pytest.mark.parametrize("script", ["aid.sh", "whu_rs19.sh"])
def test_studies_are_commands_of_today(script, tmp_path):
    """The script is run with a command that only writes down how it was called."""
    command = tmp_path / "mcfa-fast"
    command.write_text(f"#!{sys.executable}\n{RECORDING}")
    command.chmod(0o755)
    folders = {name: str(tmp_path / name.lower()) for name in ("RUNS", "RESULTS", "RECORD")}
    environment = os.environ | folders | {"MCFA_FAST": str(command), "PYTHON": "true"}
    subprocess.run([BENCHMARKS / script], check=True, env=environment)
    calls = [json.loads(line) for line in Path(folders["RECORD"]).read_text().splitlines()]
    assert {name for name, *_ in calls} <= {"benchmark", "sweep"} and calls
    for name, *arguments in calls:
        given = COMMANDS[name].make_context(name, arguments).params
        if name == "benchmark":
            assert resolve_contestants(given["systems"].split(","))
            continue
        run = RunConfig.of(
            given["system"], task=given["task"], preset=given["preset"], head=given["head"]
        )
        assert run.replace(parse_settings(given["settings"] or []))
        for choice in given["choose"]:
            option, choices = parse_choice(choice)
            for value in choices.values:
                assert run.replace({option: value})
