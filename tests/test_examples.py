"""The examples and the guide for contributors: that they run, and what they say is there.

``swap_a_loss.py`` is run in ``test_packaging.py``, with PyTorch and NumPy alone.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from mcfa_fast.systems.registry import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "CONTRIBUTING.md"

pytestmark = pytest.mark.usefixtures("one_thread")


def example(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_and_classification_are_better_than_chance(capsys):
    results = example("train_and_classify").main()
    assert results["dual-encoder"].accuracy > results["dual-encoder"].chance
    assert results["generalized"].generalized.harmonic > 0.3
    assert "predicted:" in capsys.readouterr().out


def test_encoder_of_ones_own_makes_a_dataset_folder(tmp_path):
    result = example("your_own_encoder").main(tmp_path / "encoded")
    assert (tmp_path / "encoded" / "features.npy").exists()
    assert result.accuracy > result.chance


def test_guide_adds_a_system_that_works(capsys):
    known = set(SYSTEMS)
    names = {}
    try:
        for code in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S):
            exec(compile(code, GUIDE, "exec"), names)
        (added,) = set(SYSTEMS) - known
        assert added == names["NeighbourMeans"].name == names["classifier"].run_.system
        assert names["result"].generalized.harmonic > 0
    finally:
        for name in set(SYSTEMS) - known:
            del SYSTEMS[name]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_targets_and_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^(\S+):(?!=)", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"^make ([\w-]+)|`make ([\w-]+)`", text, re.M))
    assert {first or second for first, second in named} <= targets
    places = re.findall(r"`((?:tests|benchmarks|examples|csrc|mcfa_fast)/[\w./]+)`", text)
    assert places
    for place in places:
        if "NAME" not in place:
            assert (ROOT / place).exists(), place
