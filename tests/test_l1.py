"""The gathered L1 distance against the float64 oracle and PyTorch's own loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import functional, reference

NAMES = ("loss", "instances", "table")


def problem(instances, classes, width, dtype=torch.float64, seed=0):
    """Random (instances, table, labels); some entries are equal, and some classes absent."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(instances, width, dtype=torch.float64, generator=generator).to(dtype)
    table = torch.randn(classes, width, dtype=torch.float64, generator=generator).to(dtype)
    labels = torch.randint(0, (classes + 1) // 2, (instances,), generator=generator)
    equal = torch.rand(instances, width, generator=generator) < 0.1
    return torch.where(equal, table[labels], rows), table, labels


def value_and_gradients(module, instances, table, labels=None, **options):
    tensors = [tensor.detach().requires_grad_() for tensor in (instances, table)]
    loss = module.l1_reconstruction(*tensors, labels, **options)
    weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
    return loss, *torch.autograd.grad((loss * weights.reshape(loss.shape)).sum(), tensors)


def assert_close(ours, oracle):
    for name, value, expected in zip(NAMES, ours, oracle, strict=True):
        scale = expected.abs().max().item() if expected.numel() else 0.0
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(
            value.dtype, torch.finfo(value.dtype).eps
        )
        torch.testing.assert_close(
            value.double(),
            expected,
            rtol=0,
            atol=tolerance * max(scale, 1.0),
            msg=lambda m, n=name: f"{n}: {m}",
        )


@settings(max_examples=100, deadline=None)
@given(
    instances=st.integers(0, 400),
    classes=st.integers(1, 30),
    width=st.integers(1, 200),
    labelled=st.booleans(),
    reduction=st.sampled_from(["sum", "mean", "none"]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    label_dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]),
    seed=st.integers(0, 2**31),
)
def test_any_problem_matches_the_oracle(
    instances, classes, width, labelled, reduction, dtype, label_dtype, seed
):
    rows, table, labels = problem(instances, classes, width, dtype, seed)
    if not labelled:
        table, labels = table[labels], None
    oracle = value_and_gradients(
        reference, rows.double(), table.double(), labels, reduction=reduction
    )
    if labelled:
        labels = labels.to(label_dtype)
    ours = value_and_gradients(functional, rows, table, labels, reduction=reduction)
    assert ours[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ours[1].dtype == ours[2].dtype == dtype
    assert_close(ours, oracle)


def test_without_labels_it_is_pytorchs_loss():
    rows, table, labels = problem(40, 6, 9)
    rows, table = rows.requires_grad_(), table[labels].requires_grad_()
    expected = torch.nn.functional.l1_loss(rows, table, reduction="sum")
    loss = functional.l1_reconstruction(rows, table)
    torch.testing.assert_close(loss, expected)
    for got, want in zip(
        torch.autograd.grad(loss, (rows, table)),
        torch.autograd.grad(expected, (rows, table)),
        strict=True,
    ):
        assert torch.equal(got, want)  # with 0 where entries are equal


def test_not_a_number_is_passed_on_with_pytorchs_gradient():
    rows = torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0]], requires_grad=True)
    table = torch.zeros(1, 2)
    loss = functional.l1_reconstruction(rows, table, torch.tensor([0, 0]), reduction="none")
    assert loss[0].isnan() and loss[1] == torch.inf
    (gradient,) = torch.autograd.grad(loss.sum(), rows)
    (expected,) = torch.autograd.grad((rows - table).abs().sum(), rows)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradients_that_nobody_wants_are_not_computed(labelled, wanted):
    rows, table, labels = problem(30, 4, 7, torch.float32)
    if not labelled:
        table, labels = table[labels], None
    results = torch.ops.mcfa_fast.l1_backward(
        torch.tensor(1.0), rows, table, labels, "sum", list(wanted)
    )
    leaves = [rows.requires_grad_(wanted[0]), table.requires_grad_(wanted[1])]
    functional.l1_reconstruction(*leaves, labels).backward()
    (leaf,) = (leaf for leaf in leaves if leaf.requires_grad)
    (expected,) = torch.autograd.grad(reference.l1_reconstruction(*leaves, labels), leaf)
    for result, needed in zip(results, wanted, strict=True):
        assert torch.equal(result, expected) if needed else result is None
    assert torch.equal(leaf.grad, expected)


def test_strided_inputs_and_gradients():
    rows, table, labels = problem(50, 6, 8)
    expected = value_and_gradients(reference, rows, table, labels, reduction="none")
    strided = rows.T.contiguous().T, torch.stack([table, table], dim=2)[:, :, 0]
    assert not strided[0].is_contiguous() and not strided[1].is_contiguous()
    every_other = torch.stack([labels, labels + 9], dim=1)[:, 0]
    assert_close(value_and_gradients(functional, *strided, every_other, reduction="none"), expected)
    leaf = rows.detach().requires_grad_()
    loss = functional.l1_reconstruction(leaf, table, labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss, leaf, torch.ones((), dtype=loss.dtype).expand(50))
    assert torch.equal(gradient, (rows - table[labels]).sign())


def test_a_gradient_of_the_wrong_shape_is_an_error():
    rows, table, labels = problem(5, 2, 3)
    with pytest.raises(ValueError, match=r"`grad_loss` to have shape \[5\], a number for each row"):
        torch.ops.mcfa_fast.l1_backward(torch.ones(4), rows, table, labels, "none", [True, True])


@pytest.mark.parametrize(
    ("instances", "classes", "width"), [(0, 3, 4), (0, 0, 4), (3, 2, 0), (1, 1, 1), (5, 1, 3)]
)
def test_empty_and_single(instances, classes, width):
    rows, table = torch.randn(instances, width), torch.randn(classes, width)
    labels = torch.zeros(instances, dtype=torch.int64)
    for reduction in ("sum", "mean", "none"):
        ours = value_and_gradients(functional, rows, table, labels, reduction=reduction)
        oracle = value_and_gradients(
            reference, rows.double(), table.double(), labels, reduction=reduction
        )
        assert_close(ours, oracle)


def test_a_class_of_many_rows_is_added_up_without_much_rounding():
    rows, table, labels = problem(60_000, 3, 5, torch.float32)
    ours = value_and_gradients(functional, rows, table, labels, reduction="mean")
    oracle = value_and_gradients(reference, rows.double(), table.double(), labels, reduction="mean")
    error = (ours[2].double() - oracle[2]).abs().max()
    assert error <= 2e-6 * oracle[2].abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_bitwise_the_same_on_any_number_of_threads(dtype):
    inputs = problem(3000, 9, 333, dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(functional, *inputs, reduction="none"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"instances": torch.randn(4)}, ValueError, r"`instances` to have shape \[N, F\]"),
        ({"instances": torch.ones(4, 3).long()}, TypeError, "`instances` to be float32"),
        ({"table": torch.randn(3)}, ValueError, r"`table` to have shape \[C, F\]"),
        (
            {"table": torch.randn(2, 3).double()},
            TypeError,
            "`table` to have the dtype of `instances`",
        ),
        ({"table": torch.randn(2, 5)}, ValueError, r"`table` to have F = 3 columns.*got \[2, 5\]"),
        ({"labels": None}, ValueError, "`table` to have the shape of `instances`"),
        ({"labels": torch.tensor([0, 1])}, ValueError, r"`labels` to have shape \[N\] = \[4\]"),
        (
            {"labels": torch.tensor([0, 1, 2, 0])},
            ValueError,
            r"class in \[0, 2\), but got 2 at index 2",
        ),
        (
            {"labels": torch.tensor([0, -1, 1, 0])},
            ValueError,
            r"class in \[0, 2\), but got -1 at index 1",
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
    instances, table, labels = problem(4, 2, 3, torch.float32)
    arguments = {"instances": instances, "table": table, "labels": labels} | change
    with pytest.raises(error, match=message):
        functional.l1_reconstruction(**arguments)
