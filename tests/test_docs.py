"""The examples of the documentation, on the data that they name."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_run import ONE_EPOCH, invoke

DOCS = Path(__file__).resolve().parents[1] / "docs"

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_deployment(tmp_path, monkeypatch, capsys):
    """Every command on the digits run in turn, then the Python examples."""
    text = (DOCS / "deployment.md").read_text()
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
        command = shlex.split(line, comments=True)
        if command[:1] == ["mcfa-fast"] and command[1] != "serve" and "RUN" not in command:
            options = ONE_EPOCH if command[1] == "train" else []
            result = invoke(*command[1:], *options)
            assert result.exit_code == 0, f"{line}: {result.output}"
        elif command[:2] == ["python", "-c"]:
            subprocess.run([sys.executable, *command[1:]], check=True)
        elif command[:1] == ["mv"]:
            shutil.move(*command[1:])
        else:
            continue
        ran.append(command[1] if command[0] == "mcfa-fast" else command[0])
    assert {"train", "predict", "add-class", "export", "python", "mv"} == set(ran)
    assert np.load("labels.npy")["class"].shape == (1797, 1)
    for code in blocks(text, "python"):
        exec(compile(code, "deployment.md", "exec"), {})
    assert "another eight" not in capsys.readouterr().out  # its addition was undone


def test_training(tmp_path, monkeypatch):
    text = (DOCS / "training.md").read_text()
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
        result = invoke(*shlex.split(line)[1:], *ONE_EPOCH)
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert (tmp_path / "runs" / "large" / "results.json").exists()
    for code in blocks(text, "python"):
        exec(compile(code, "training.md", "exec"), {})
