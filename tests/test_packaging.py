"""The source distribution, the wheel that is built from it, and the wheel beside PyTorch alone.

`make test` has built the wheel; otherwise it is compiled here once, which takes minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import light_environment
import pytest
from packaging.requirements import Requirement

import mcfa_fast as mf
from mcfa_fast._extras import MODULES

ROOT = Path(__file__).resolve().parents[1]
BY_PRODUCTS = shutil.ignore_patterns(
    ".*", "build", "dist", "runs", "results", "*.egg-info", "*.so", "__pycache__"
)
# What takes PyTorch and NumPy alone; all else in the package may need an extra.
LIGHT = (
    *("chunked", "compat", "distributed", "functional"),
    *("linear", "losses", "ops", "reference", "search"),
)

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="the tests are not beside the sources"
)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution of a clean copy of the sources."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "sources", ignore=BY_PRODUCTS)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder]
    subprocess.run([*command, folder / "sources"], check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel of the source distribution: the one of `make`, unless sources are newer."""
    sources = [path for top in ("csrc", "mcfa_fast") for path in (ROOT / top).rglob("*.*")]
    sources += [ROOT / name for name in ("setup.py", "pyproject.toml")]
    newest = max(path.stat().st_mtime for path in sources if path.suffix not in (".pyc", ".so"))
    for path in (ROOT / "build" / "dist").glob("*.whl"):
        if path.stat().st_mtime > newest:
            return path
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    environment = os.environ | {"MCFA_FAST_CUDA": "off"}
    subprocess.run([*command, "--wheel-dir", folder, unpacked], check=True, env=environment)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def light_python(wheel, tmp_path_factory):
    """An interpreter with the wheel, PyTorch and NumPy."""
    return light_environment.create(tmp_path_factory.mktemp("light") / "venv", wheel)


def run(python, code, *arguments, cwd):
    command = [python, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def requirements(wheel):
    """The requirements of the wheel by extra, those without one under None."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    by_extra = {None: set()}
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "Requires-Dist":
            requirement = Requirement(value)
            extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
            by_extra.setdefault(extra and extra[1], set()).add(requirement.name.replace("_", "-"))
    return by_extra


def test_source_distribution_holds_all_that_is_compiled_and_tested(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    patterns = ("csrc/**/*", "build_support/*.py", "examples/**/*", "tests/**/*", "mcfa_fast/**/*")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.is_file() and path.suffix not in (".pyc", ".so")
        # Not what tests leave behind.
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert {Path(name).suffix for name in wanted} >= {".cpp", ".h", ".cu", ".cuh", ".j2", ".typed"}
    assert wanted | {"CMakeLists.txt", "LICENSE", "Makefile", "README.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_wheel_holds_the_package_alone_with_templates_and_types(sdist, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"mcfa_fast"}
    assert "mcfa_fast/py.typed" in names and "mcfa_fast/reporting/templates/run.html.j2" in names
    assert [name for name in names if re.fullmatch(r"mcfa_fast/_C\..*so", name)]
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in names if name.endswith(".py")} == {
        name for name in sources if re.fullmatch(r"mcfa_fast/.*\.py", name)
    }


def test_wheel_requires_pytorch_and_numpy_and_offers_the_rest_as_extras(wheel):
    by_extra = requirements(wheel)
    assert by_extra[None] == {"torch", "numpy"}
    assert set(by_extra) == {None, *MODULES, "all", "test", "bench"}


@pytest.mark.parametrize("extra", MODULES)
def test_extra_brings_the_modules_that_are_known_of_it(wheel, extra):
    distributions = packages_distributions()
    known = {distributions[module][0].lower() for module in MODULES[extra]}
    assert known == {name.lower() for name in requirements(wheel)[extra]} - {"mcfa-fast"}


def test_losses_are_swapped_in_a_training_loop_with_pytorch_alone(light_python, tmp_path):
    shutil.copy(ROOT / "examples" / "swap_a_loss.py", tmp_path)
    code = "import json, swap_a_loss; print(json.dumps(swap_a_loss.main()))"
    histories = run(light_python, code, cwd=tmp_path)
    before = histories.pop("quadratic")
    assert before[-1] < 0.8 * before[0]
    assert [name.partition(", ")[2] for name in histories] == ["", "compiled", "scripted"]
    for history in histories.values():
        assert history == pytest.approx(before, rel=1e-4)


def test_every_module_loads_with_pytorch_alone_or_names_its_extra(light_python, tmp_path):
    code = """
import importlib, json, pathlib, sys
import mcfa_fast
root = pathlib.Path(mcfa_fast.__file__).parent
outcome = {}
for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts).removesuffix(".__init__")
    if not name.endswith("__main__"):
        try:
            importlib.import_module(f"mcfa_fast.{name}" if name != "__init__" else "mcfa_fast")
            outcome[name] = None
        except Exception as error:
            outcome[name] = [type(error).__name__, str(error)]
print(json.dumps(outcome))
"""
    outcome = run(light_python, code, cwd=tmp_path)
    assert all(outcome[name] is None for name in LIGHT)
    refused = {name: error for name, error in outcome.items() if error is not None}
    assert {"classifiers", "cli", "reporting", "serving", "systems.base"} <= set(refused)
    for name, (kind, message) in refused.items():
        room, _, library = name.partition(".")
        if room == "compat":  # in place of losses of a library that users have
            assert kind == "ModuleNotFoundError" and message == f"No module named {library!r}"
            continue
        assert kind == "MissingExtraError", f"{name}: {message}"
        assert re.fullmatch(
            r"mcfa_fast\.\w+: \w+ is not installed; pip install 'mcfa_fast\[\w+\]'", message
        )


def test_names_of_the_package_work_with_pytorch_alone_or_name_their_extra(light_python, tmp_path):
    code = """
import json
import mcfa_fast as mf
outcome = {}
for name in mf.__all__:
    try:
        getattr(mf, name)
        outcome[name] = None
    except ImportError as error:
        outcome[name] = str(error)
print(json.dumps(outcome))
"""
    outcome = run(light_python, code, cwd=tmp_path)
    light = {name for name, error in outcome.items() if error is None}
    assert light >= {"LatentIndex", "compat", "functional", "in_chunks", "losses", "reference"}
    assert light >= {name for name in dir(mf.losses) if name in mf.__all__}
    assert {"MCFA", "Trainer", "ZeroShotClassifier"}.isdisjoint(light)
    assert all("pip install 'mcfa_fast[zsl]'" in outcome[name] for name in set(outcome) - light)


@pytest.mark.parametrize("command", [["mcfa-fast"], ["python", "-m", "mcfa_fast"]])
def test_command_without_its_extra_says_so_in_one_line(light_python, command, tmp_path):
    command = [light_python.parent / command[0], *command[1:], "info"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    expected = "error: mcfa_fast.cli: typer is not installed; pip install 'mcfa_fast[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_import_and_losses_load_none_of_the_extras(tmp_path):
    """Where they are installed, too."""
    code = """
import json, sys
import torch
before = set(sys.modules)
import mcfa_fast as mf
for name in sys.argv[1:]:
    getattr(mf, name)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
    names = ["compat", "distributed", "functional", "in_chunks", "losses", "ops", "reference"]
    loaded = run(sys.executable, code, *names, cwd=tmp_path)
    assert "mcfa_fast" in loaded
    assert not {module for modules in MODULES.values() for module in modules} & set(loaded)
