"""A virtual environment that has PyTorch and NumPy alone, lent by the one the tests run in."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ALONE = ("torch", "numpy")


def create(folder: Path, wheel: Path) -> Path:
    """The interpreter of a new environment with :data:`ALONE`, what they need, and the wheel."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    packages = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    for distribution in needed(ALONE):
        for part in top_levels(distribution):
            if not (packages / part).exists():
                (packages / part).symlink_to(distribution.locate_file(part))
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    return python


def needed(names: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """The distributions of these names and all that they depend on here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return list(found.values())


def top_levels(distribution: importlib.metadata.Distribution) -> set[str]:
    """What a distribution has put into the folder of packages."""
    files = distribution.files
    assert files is not None, distribution.name
    return {file.parts[0] for file in files} - {"..", "__pycache__"}
