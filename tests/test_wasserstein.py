"""The Wasserstein alignment against the float64 oracle and its pinned semantics."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import functional, reference

NAMES = ("mean_a", "logvar_a", "mean_b", "logvar_b")


def problem(instances, classes, width, dtype=torch.float64, seed=0):
    """Random Gaussians and labels: (mean_a, logvar_a, mean_b, logvar_b, labels)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(rows):
        return torch.randn(rows, width, dtype=torch.float64, generator=generator).to(dtype)

    labels = torch.randint(0, classes, (instances,), generator=generator)
    return normal(instances), normal(instances), normal(classes), normal(classes), labels


def value_and_gradients(module, *inputs, **options):
    tensors = [tensor.detach().requires_grad_() for tensor in inputs[:4]]
    loss = module.wasserstein_alignment(*tensors, *inputs[4:], **options)
    weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
    return loss, *torch.autograd.grad((loss * weights.reshape(loss.shape)).sum(), tensors)


@settings(max_examples=60, deadline=None)
@given(
    instances=st.integers(0, 400),
    classes=st.integers(1, 30),
    width=st.integers(1, 70),
    labelled=st.booleans(),
    reduction=st.sampled_from(["sum", "mean", "none"]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**31),
)
def test_any_problem_matches_the_oracle(
    instances, classes, width, labelled, reduction, dtype, seed
):
    inputs = problem(instances, classes if labelled else instances or 1, width, dtype, seed)
    if not labelled:
        inputs = (*inputs[:2], inputs[2][:instances], inputs[3][:instances])
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    oracle = value_and_gradients(reference, *exact, reduction=reduction)
    ours = value_and_gradients(functional, *inputs, reduction=reduction)
    for name, value, expected in zip(("loss", *NAMES), ours, oracle, strict=True):
        scale = expected.abs().max().item() if expected.numel() else 0.0
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(
            value.double(),
            expected,
            rtol=0,
            atol=tolerance * max(scale, 1.0),
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_the_gradient_at_distance_zero_is_zero():
    mean, logvar = torch.randn(3, 4), torch.randn(3, 4)
    loss, *gradients = value_and_gradients(functional, mean, logvar, mean, logvar)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_no_worse_than_the_plain_formula_in_it(dtype):
    inputs = problem(300, 7, 32, dtype)
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    oracle = value_and_gradients(reference, *exact, reduction="mean")
    plain = value_and_gradients(reference, *inputs, reduction="mean")
    ours = value_and_gradients(functional, *inputs, reduction="mean")
    assert ours[0].dtype == torch.float32 and ours[1].dtype == dtype
    for name, value, other, expected in zip(("loss", *NAMES), ours, plain, oracle, strict=True):
        error = (value.double() - expected).abs().max()
        allowed = (other.double() - expected).abs().max()
        assert error <= allowed + 1e-5 * expected.abs().max(), name


def test_two_runs_are_bitwise_the_same():
    inputs = problem(3000, 9, 33, torch.float32)
    first, second = (value_and_gradients(functional, *inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean_a": torch.randn(4)}, ValueError, r"`mean_a` to have shape \[N, D\]"),
        ({"logvar_a": torch.randn(3, 3)}, ValueError, "`logvar_a` to have the shape of `mean_a`"),
        (
            {"mean_b": torch.randn(2, 3).double()},
            TypeError,
            "`mean_b` to have the dtype of `mean_a`",
        ),
        ({"logvar_b": torch.randn(3, 3)}, ValueError, "`logvar_b` to have the shape of `mean_b`"),
        ({"labels": None}, ValueError, "`mean_b` to have the shape of `mean_a`"),
        (
            {"labels": torch.tensor([0, 1, 2, 0])},
            ValueError,
            r"class in \[0, 2\), but got 2 at index 2",
        ),
        ({"labels": torch.zeros(4)}, TypeError, "`labels` to have an integer dtype"),
        (
            {"reduction": "avg"},
            ValueError,
            "`reduction` to be 'sum', 'mean' or 'none', but got 'avg'",
        ),
    ],
)
def test_bad_input_is_named(change, error, message):
    mean_a, logvar_a, mean_b, logvar_b, labels = problem(4, 2, 3, torch.float32)
    arguments = {
        "mean_a": mean_a,
        "logvar_a": logvar_a,
        "mean_b": mean_b,
        "logvar_b": logvar_b,
        "labels": labels,
    } | change
    with pytest.raises(error, match=message):
        functional.wasserstein_alignment(**arguments)
