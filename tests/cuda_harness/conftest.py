"""The harness for the tests beside it: the CUDA operators on CPU tensors."""

import ctypes
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from build_harness import build  # noqa: E402
from harness_control import Harness  # noqa: E402


@pytest.fixture(scope="session")
def library():
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler to build the harness with")
    path = str(build())
    torch.ops.load_library(path)
    return ctypes.CDLL(path)


@pytest.fixture
def harness(library, monkeypatch):
    """The harness as it is at first, with mcfa_fast.functional calling the operators in it.

    Memory that nobody has written to is NaN.
    """
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    monkeypatch.setattr(torch.ops, "mcfa_fast", torch.ops.mcfa_fast_harness)
    control = Harness(library)
    yield control
    control.reset()
    torch.use_deterministic_algorithms(False)
