"""The matrix product of bulk classification and exact search against plain PyTorch."""

import importlib

import pytest
import torch
from torch.nn import functional as F

from mcfa_fast.linear import linear

module = importlib.import_module("mcfa_fast.linear")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 100])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("mode", ["onednn", "plain", "float64", "strided", "no bias"])
def test_linear_equals_pytorchs(rows, relu, mode, monkeypatch):
    monkeypatch.setattr(module, "_FEWEST_MULTIPLICATIONS", 0)
    if mode == "plain":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    x, weight, bias = normal(rows, 33), normal(20, 33, seed=1), normal(20, seed=2)
    if mode == "float64":
        x, weight, bias = x.double(), weight.double(), bias.double()
    if mode == "strided":
        x, weight = normal(33, rows).T, normal(33, 20).T
    if mode == "no bias":
        bias = None
    wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    result = linear(x, weight, bias, relu=relu)
    assert result.dtype == x.dtype
    torch.testing.assert_close(
        result.double(), wanted.relu() if relu else wanted, atol=1e-5, rtol=0
    )


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_large_products_go_to_onednn(monkeypatch):
    """Not to PyTorch's own call, which would be correct, but slow."""
    monkeypatch.setattr(F, "linear", lambda *_: pytest.fail("PyTorch's own call"))
    assert linear(normal(64, 256), normal(64, 256, seed=1)).shape == (64, 64)
