"""Every operator on a GPU: against the float64 oracle, without synchronisation, under autocast."""

import pytest
import torch
from op_samples import (
    FUNCTIONS,
    Sample,
    batch,
    case_ids,
    cases,
    largest_error,
    values_and_gradients,
)

from mcfa_fast import functional, reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = cases("shapes")


def allowance(function, dtype, options):
    """What the harness allows, and more in single precision, where a GPU's exponential errs."""
    return function.tolerance(dtype, options) * (20 if dtype == torch.float32 else 2)


def assert_right(function, sample, dtype):
    data = sample.to(dtype)._replace(options=sample.options).to("cuda")
    oracle = values_and_gradients(getattr(reference, function.name), data.to(torch.float64))
    ours = values_and_gradients(getattr(functional, function.name), data)
    assert largest_error(ours, oracle) <= allowance(function, dtype, sample.options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("function", "sample"), SHAPES, ids=case_ids(SHAPES))
def test_operators_match_the_oracle(function, sample, dtype):
    # One instance has a temperature's gradient of 0, the difference of large and rounded terms.
    if sample.tensors[0].shape[0] == 1 and "temperature" in sample.options:
        sample = sample._replace(options=sample.options | {"temperature": 0.3})
    assert_right(function, sample, dtype)


def enlarged(sample, times):
    """The same rows many times over."""
    rows = len(sample.tensors[0])

    def repeated(tensor):
        if isinstance(tensor, torch.Tensor) and len(tensor) == rows:
            return tensor.repeat(times, *[1] * (tensor.dim() - 1))
        return tensor

    return sample._replace(tensors=tuple(map(repeated, sample.tensors)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "function",
    [function for function in FUNCTIONS if "temperature" not in next(function.small()).options],
    ids=lambda function: function.name,
)
def test_many_rows_match_the_oracle(function, dtype):
    for sample in function.shapes():
        if len(sample.tensors[0]) > 0:
            assert_right(function, enlarged(sample, 5000 // len(sample.tensors[0]) + 1), dtype)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_nothing_waits_for_the_gpu(function, dtype):
    for sample in function.small():
        data = sample.to(dtype).to("cuda").leaves()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            outputs = getattr(functional, function.name)(*data.tensors, **data.options)
            outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
            sum(output.sum() for output in outputs).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_number_as_temperature_waits_neither():
    data = Sample(batch(500, 10, 64)).to(torch.bfloat16).to("cuda")
    visual, semantic, labels = data.leaves().tensors
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sum(functional.contrastive_losses(visual, semantic, labels, temperature=0.3)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_compile_with_fullgraph_gives_the_same(function):
    sample = next(function.small()).to(torch.float32).to("cuda")
    call = getattr(functional, function.name)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    expected = values_and_gradients(call, sample)
    for got, want in zip(values_and_gradients(compiled, sample), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_autocast_brings_mixed_latents_together(function):
    sample = next(function.small()).to(torch.float32).to("cuda")
    first, *others = sample.tensors
    call = getattr(functional, function.name)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        results = call(first.bfloat16(), *others, **sample.options)
    expected = call(first.bfloat16().float(), *others, **sample.options)
    if isinstance(results, torch.Tensor):
        results, expected = (results,), (expected,)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)
