"""The examples of the documentation: those that can run do, and every command has its options."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from cli_run import ONE_EPOCH, invoke

import mcfa_fast as mf
from mcfa_fast.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_lines(page):
    return "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()


def command_lines(page):
    """The words of every line that calls the command, without its name or torchrun's options."""
    lines = (shlex.split(line, comments=True) for line in shell_lines(page))
    names = {"mcfa-fast": "mcfa-fast", "torchrun": "mcfa_fast"}
    return [
        words[words.index(names[words[0]]) + 1 :] for words in lines if words and words[0] in names
    ]


def run_blocks(page, names):
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), names)


def run_in_shell(line):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-c", line]
    return subprocess.run(
        command, env=os.environ | {"PATH": path}, check=True, capture_output=True, text=True
    ).stdout


def options_of(command):
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_can_be_parsed(page):
    lines = command_lines(page)
    assert lines or page.name in ("accuracy.md", "large_batches.md")
    for name, *arguments in lines:
        COMMANDS[name].make_context(name, arguments)  # an error if it is wrong usage


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_within_the_text_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    known = set.union(*map(options_of, COMMANDS.values()))
    for code in re.findall(r"`([^`]+)`", prose):
        words = code.split()
        allowed = known
        if words[0] == "mcfa-fast" and len(words) > 1:
            allowed = options_of(COMMANDS[words[1]])
        options = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
        assert options <= allowed, code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--no-such-option", "1"], "No such option"),
        (["predict", "RUN", "-o", "labels.csv"], "features"),
        (["train", "--task", "fast"], "'fast' is not one of"),
    ],
)
def test_wrong_command_lines_would_be_found(arguments, message):
    name, *rest = arguments
    with pytest.raises(Exception, match=message):
        COMMANDS[name].make_context(name, rest)


def test_readme_python(tmp_path, monkeypatch):
    """In order, each with what those before have defined; the authors' module is played by ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ContrastiveLoss_new", mf.compat)
    generator = torch.Generator().manual_seed(0)
    names = {
        "z_visual": torch.randn(12, 8, generator=generator),
        "z_semantic": torch.randn(4, 8, generator=generator),
        "labels": torch.arange(12) % 4,
    }
    run_blocks("README.md", names)
    assert torch.isfinite(names["loss"]) and torch.isfinite(names["vtov"])
    assert names["classifier"].class_names_[-1] == "a new digit"


def test_readme_tune(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [words for words in command_lines("README.md") if "runs/tuned" in " ".join(words)]
    assert [name for name, *_ in lines] == ["sweep", "train"]
    for words, quick in zip(lines, (["--trials", "1", "--jobs", "1"], ONE_EPOCH), strict=True):
        result = invoke(*words, *quick)
        assert result.exit_code == 0, result.output


def test_deployment(tmp_path, monkeypatch, capsys):
    """Every command on the digits run in turn, then the Python examples."""
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in shell_lines("docs/deployment.md"):
        command = shlex.split(line, comments=True)
        if command[:1] == ["mcfa-fast"] and command[1] != "serve" and "RUN" not in command:
            options = ONE_EPOCH if command[1] == "train" else []
            result = invoke(*command[1:], *options)
            assert result.exit_code == 0, f"{line}: {result.output}"
        elif command[:1] in (["python"], ["mv"]):
            run_in_shell(line)
        else:
            continue
        ran.append(command[1] if command[0] == "mcfa-fast" else command[0])
    assert {"train", "predict", "add-class", "export", "python", "mv"} == set(ran)
    assert np.load("labels.npy")["class"].shape == (1797, 1)
    run_blocks("docs/deployment.md", {})
    assert "another eight" not in capsys.readouterr().out  # its addition was undone
    if shutil.which("curl") is None:
        pytest.skip("the rest needs curl")
    serve_and_curl()


def serve_and_curl():
    """The server as it is started there, but on a free port, and every call of it in turn."""
    (serve,) = [words for words in command_lines("docs/deployment.md") if words[0] == "serve"]
    calls = [line for line in shell_lines("docs/deployment.md") if line.startswith("curl ")]
    command = [sys.executable, "-m", "mcfa_fast", *serve, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())[1]
            answers = [
                json.loads(run_in_shell(call.replace("localhost:8000", f"127.0.0.1:{port}")))
                for call in calls
            ]
        finally:
            process.terminate()
    health, classes, nearest, every, added = answers
    assert (health["status"], len(classes["classes"])) == ("ok", 10)
    assert nearest["head"] == "nearest" and np.shape(nearest["classes"]) == (2, 3)
    assert len(every["classes"]) == 1797
    assert added == {"index": 10, "name": "one more eight"}


def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in command_lines("docs/training.md"):
        if "runs/large" not in words:
            continue
        result = invoke(*words, *ONE_EPOCH)
        assert result.exit_code == 0, f"{words}: {result.output}"
    assert (tmp_path / "runs" / "large" / "results.json").exists()
    run_blocks("docs/training.md", {})
