"""Every operator's CUDA code, executed on the CPU by the harness, against the float64 oracle.

The harness compiles csrc/*/*.cu as C++: the same host code and the same kernels, on CPU tensors,
every thread of a block as a fiber.
"""

import pytest
import torch
from harness_control import ORDERS
from op_samples import FUNCTIONS, case_ids, cases, largest_error, values_and_gradients

from mcfa_fast import functional, reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = cases("shapes")


@pytest.mark.parametrize(("function", "sample"), SHAPES, ids=case_ids(SHAPES))
def test_operators_match_the_oracle_in_every_order_of_threads(harness, function, sample):
    for dtype in DTYPES:
        data = sample.to(dtype)._replace(options=sample.options)
        oracle = values_and_gradients(getattr(reference, function.name), data.to(torch.float64))
        first = None
        for order in ORDERS:
            harness.order(order, seed=5)
            harness.forget_lines()
            ours = values_and_gradients(getattr(functional, function.name), data)
            assert largest_error(ours, oracle) <= function.tolerance(dtype, sample.options)
            first = first or ours
            assert all(torch.equal(got, want) for got, want in zip(ours, first, strict=True))


def test_every_operator_runs_in_the_harness(harness):
    registered = {
        name.partition("::")[2]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("mcfa_fast::")
    }
    assert registered
    for name in registered:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"mcfa_fast_harness::{name}", "CPU")
    # That the functions call these and no others: those have no profile of their own.
    with torch.profiler.profile() as profile:
        for function in FUNCTIONS:
            values_and_gradients(getattr(functional, function.name), next(function.small()))
    called = {event.name for event in profile.events() if event.name.startswith("mcfa_fast")}
    assert called == {f"mcfa_fast_harness::{name}" for name in registered}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_label_out_of_range_stops_the_launch(harness, function):
    for sample in function.small():
        labels = sample.tensors[-1]
        any_label = function.name in ("vtov_loss", "anchor_key")
        if any_label or labels is None or labels.is_floating_point():
            continue
        for label in (3, -1):
            bad = labels.clone()
            bad[4] = label
            with pytest.raises(RuntimeError, match=r"entry of `labels` to be a class in \[0, C\)"):
                values_and_gradients(
                    getattr(functional, function.name),
                    sample._replace(tensors=(*sample.tensors[:-1], bad)),
                )
