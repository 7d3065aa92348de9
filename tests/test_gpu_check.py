"""The GPU check where PyTorch, NumPy and pytest are installed, and nothing else of the package."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent

# What PyTorch, NumPy and pytest bring along may be imported, and the standard library.
COLLECT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "sklearn", "scipy", "typer", "rich", "faiss",
                                      "tensorboard", "hypothesis", "threadpoolctl", "filelock"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import pytest

sys.exit(pytest.main(sys.argv[1:]))
"""


def test_the_gpu_tests_need_pytorch_and_pytest_alone():
    command = [
        sys.executable,
        "-c",
        COLLECT,
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    ]
    # From the tests' own folder, where the installed package is found and not the sources.
    command += ["-c", "../pyproject.toml", "--rootdir", "..", "--confcutdir", "gpu", "gpu"]
    result = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert " skipped" in result.stdout or " passed" in result.stdout
