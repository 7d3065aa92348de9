"""Sampling from Gaussians against the float64 oracle and PyTorch's own distributions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import functional, reference

NAMES = ("samples", "mean", "logvar")


def problem(rows, width, noise_per_row=False, dtype=torch.float64, seed=0, spread=1.0):
    """Random (mean, logvar, noise) and a gradient of the samples."""
    generator = torch.Generator().manual_seed(seed)
    mean, logvar, upstream = torch.randn(3, rows, width, dtype=torch.float64, generator=generator)
    shape = (rows, 1) if noise_per_row else (rows, width)
    noise = torch.randn(shape, dtype=torch.float64, generator=generator)
    logvar = (logvar * spread).clamp(-9, 9)
    return tuple(tensor.to(dtype) for tensor in (mean, logvar, noise, upstream))


def samples_and_gradients(module, mean, logvar, noise, upstream, **options):
    leaves = mean.detach().requires_grad_(), logvar.detach().requires_grad_()
    samples = module.reparameterize(*leaves, noise, **options)
    return samples, *torch.autograd.grad(samples, leaves, upstream)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 700),
    width=st.integers(0, 70),
    noise_per_row=st.booleans(),
    power=st.sampled_from([0.5, 1.0]),
    spread=st.floats(0.1, 5.0),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
def test_any_problem_matches_the_oracle(rows, width, noise_per_row, power, spread, dtype, seed):
    inputs = problem(rows, width, noise_per_row, dtype, seed, spread)
    exact = [tensor.double() for tensor in inputs]
    oracle = samples_and_gradients(reference, *exact, power=power)
    ours = samples_and_gradients(functional, *inputs, power=power)
    tolerance = {torch.float64: 1e-14, torch.float32: 2e-6}.get(dtype, torch.finfo(dtype).eps)
    for name, value, expected in zip(NAMES, ours, oracle, strict=True):
        assert value.dtype == dtype
        # Entry by entry; the terms of a sample may cancel. Below 2^-14, float16 is subnormal.
        size = expected.abs() + (exact[0].abs() if name == "samples" else 0)
        error = (value.double() - expected).abs()
        assert (error <= tolerance * size.clamp(min=2**-14)).all(), name


def test_definition_is_pytorchs():
    mean, logvar, *_ = problem(5, 3)
    gaussian = torch.distributions.Normal(mean, (logvar / 2).exp())
    expected = gaussian.rsample(torch.Size([]))
    noise = (expected - mean) / gaussian.scale
    for module in (functional, reference):
        torch.testing.assert_close(module.reparameterize(mean, logvar, noise), expected)


def test_the_means_gradient_is_the_samples_gradient_itself():
    mean, logvar, noise, upstream = problem(6, 4)
    mean.requires_grad_()
    samples = functional.reparameterize(mean, logvar, noise)
    (gradient,) = torch.autograd.grad(samples, mean, upstream)
    assert gradient.data_ptr() == upstream.data_ptr()
    # So it can be differentiated again, by the gradient of the samples.
    upstream.requires_grad_()
    samples = functional.reparameterize(mean, logvar, noise)
    (gradient,) = torch.autograd.grad(samples, mean, upstream, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), upstream)
    assert (second == 1).all()


def test_strided_inputs():
    mean, logvar, noise, upstream = problem(8, 6)
    expected = samples_and_gradients(reference, mean, logvar, noise, upstream)
    heads = torch.cat([mean, logvar], dim=1)
    strided = heads[:, :6], heads[:, 6:], noise.T.contiguous().T, upstream.T.contiguous().T
    assert not any(tensor.is_contiguous() for tensor in strided)
    for got, want in zip(samples_and_gradients(functional, *strided), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_two_runs_are_bitwise_the_same_on_any_number_of_threads():
    inputs = problem(3000, 33, dtype=torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 3):
            torch.set_num_threads(threads)
            results.append(samples_and_gradients(functional, *inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean": torch.randn(4)}, ValueError, r"`mean` to have shape \[N, D\]"),
        ({"mean": torch.ones(4, 3).long()}, TypeError, "`mean` to be float32"),
        ({"logvar": torch.randn(4, 3).double()}, TypeError, "`logvar` to have the dtype of `mean`"),
        ({"logvar": torch.randn(3, 3)}, ValueError, "`logvar` to have the shape of `mean`"),
        ({"noise": torch.randn(4, 3).half()}, TypeError, "`noise` to have the dtype of `mean`"),
        (
            {"noise": torch.randn(4, 2)},
            ValueError,
            r"`noise` to have the shape of `mean`, \[4, 3\], or one column, but got \[4, 2\]",
        ),
        ({"noise": torch.randn(1, 3)}, ValueError, "`noise` to have the shape of `mean`"),
        ({"noise": torch.randn(4)}, ValueError, "`noise` to have the shape of `mean`"),
        (
            {"noise": torch.randn(4, 3, requires_grad=True)},
            ValueError,
            "`noise` not to require a gradient",
        ),
        ({"power": 0.0}, ValueError, "`power` to be positive and finite, but got 0"),
        ({"power": float("nan")}, ValueError, "`power` to be positive and finite, but got nan"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = dict(zip(("mean", "logvar", "noise"), torch.randn(3, 4, 3), strict=True)) | change
    with pytest.raises(error, match=message):
        functional.reparameterize(**arguments)
