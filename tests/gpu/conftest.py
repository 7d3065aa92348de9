"""These tests need a GPU, an extension built with CUDA, PyTorch, NumPy and pytest; nothing else."""

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import losses_only  # noqa: E402

losses_only.load()


def reason_to_skip():
    if not torch.cuda.is_available():
        return "no GPU here"
    if not torch._C._dispatch_has_kernel_for_dispatch_key("mcfa_fast::contrastive_forward", "CUDA"):
        return "the extension was built without CUDA"
    return None


def pytest_collection_modifyitems(items):
    reason = reason_to_skip()
    if reason is not None:
        for item in items:  # of the whole session
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))
