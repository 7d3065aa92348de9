"""Fixtures for every test module."""

import shutil
import sys

import pytest
import torch

import mcfa_fast as mf

collect_ignore = ["toy_system.py"]  # has no example, and would be registered for all modules

_ORDER: list[str] = []  # of the registry's systems


@pytest.fixture(scope="module", autouse=True)
def registry_of_the_package():
    """What a test module registers or replaces is known to it alone; the order stays, too."""
    yield
    registry = sys.modules.get("mcfa_fast.systems.registry")  # not where it was never needed
    if registry is None:
        return
    for name, entry in list(registry.SYSTEMS.items()):
        if not entry.system.__module__.startswith("mcfa_fast."):
            del registry.SYSTEMS[name]
            if name.startswith(f"{entry.system.__module__}:"):  # found again by its name
                sys.modules.pop(entry.system.__module__, None)
    _ORDER.extend(name for name in registry.SYSTEMS if name not in _ORDER)
    ordered = {name: registry.SYSTEMS[name] for name in _ORDER if name in registry.SYSTEMS}
    registry.SYSTEMS.clear()
    registry.SYSTEMS.update(ordered)


@pytest.fixture(scope="module")
def one_thread():
    """Models this small gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """The folder of a finished generalized run of MCFA on digits; tests only read it."""
    from cli_run import MCFA, invoke  # only these tests need the command line's extra

    threads = torch.get_num_threads()  # which the command may set to one
    folder = tmp_path_factory.mktemp("runs") / "digits"
    result = invoke("train", "--task", "gzsl", *MCFA, "--seed", "3", "--run-dir", folder)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def nearest_run(run_dir, tmp_path):
    """A copy of that run whose classifier was saved with another head than softmax."""
    folder = shutil.copytree(run_dir, tmp_path / "nearest")
    classifier = mf.ZeroShotClassifier.load(folder / "classifier.pt").with_head("nearest")
    classifier.save(folder / "classifier.pt")
    return folder
