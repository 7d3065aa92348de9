"""The KL divergence against the float64 oracle and PyTorch's own distributions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import functional, reference


def value_and_gradients(module, mean, logvar, **options):
    mean, logvar = mean.detach().requires_grad_(), logvar.detach().requires_grad_()
    loss = module.kl_divergence(mean, logvar, **options)
    weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
    return loss, *torch.autograd.grad((loss * weights.reshape(loss.shape)).sum(), (mean, logvar))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 700),
    width=st.integers(1, 70),
    spread=st.floats(0.1, 20.0),
    reduction=st.sampled_from(["sum", "mean", "none"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
def test_any_problem_matches_the_oracle(rows, width, spread, reduction, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    mean, logvar = (
        (torch.randn(2, rows, width, generator=generator) * spread).clamp(-9, 9).to(dtype)
    )
    oracle = value_and_gradients(reference, mean.double(), logvar.double(), reduction=reduction)
    ours = value_and_gradients(functional, mean, logvar, reduction=reduction)
    assert ours[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for value, expected in zip(ours, oracle, strict=True):
        largest = expected.abs().max().item() if expected.numel() else 0.0
        tolerance = 1e-12 if value.dtype == torch.float64 else 1e-5
        if value.dtype in (torch.bfloat16, torch.float16):
            tolerance = torch.finfo(value.dtype).eps
        torch.testing.assert_close(
            value.double(), expected, rtol=0, atol=tolerance * max(largest, 1.0)
        )


def test_definition_is_pytorchs():
    mean, logvar = torch.randn(2, 5, 3, dtype=torch.float64)
    gaussian = torch.distributions.Normal(mean, (logvar / 2).exp())
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(gaussian, unit).sum(dim=1)
    for module in (functional, reference):
        torch.testing.assert_close(module.kl_divergence(mean, logvar, reduction="none"), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean": torch.randn(4)}, ValueError, r"`mean` to have shape \[N, D\]"),
        ({"mean": torch.ones(4, 3).long()}, TypeError, "`mean` to be float32"),
        ({"logvar": torch.randn(4, 3).double()}, TypeError, "`logvar` to have the dtype of `mean`"),
        ({"logvar": torch.randn(3, 3)}, ValueError, "`logvar` to have the shape of `mean`"),
        ({"reduction": "avg"}, ValueError, "`reduction` to be 'sum', 'mean' or 'none'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {"mean": torch.randn(4, 3), "logvar": torch.randn(4, 3)} | change
    with pytest.raises(error, match=message):
        functional.kl_divergence(**arguments)
