"""Every registered operator: opcheck, gradcheck, autocast, meta tensors, second derivatives."""

import functools
import inspect

import pytest
import torch
from op_samples import FUNCTIONS, batch, case_ids, cases, values_and_gradients
from torch.utils._python_dispatch import TorchDispatchMode

import mcfa_fast as mf
from mcfa_fast import functional, reference

SMALL = cases("small")
IDS = case_ids(SMALL)


def registered():
    """The operators of the library, as PyTorch knows them."""
    names = torch._C._dispatch_get_all_op_names()
    return {name for name in names if name.startswith("mcfa_fast::")}


class Recording(TorchDispatchMode):
    """Calls of the library's operators, with their arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "mcfa_fast":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def calls_of(function, sample):
    """The operators that a function and its gradient call."""
    with Recording() as recording:
        values_and_gradients(getattr(functional, function.name), sample)
    return recording.calls


def detached(argument):
    return argument.detach() if isinstance(argument, torch.Tensor) else argument


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_opcheck(function, sample):
    for operator, arguments in calls_of(function, sample.to(torch.float32)):
        if operator._opname.endswith("_backward"):  # which cannot be differentiated
            arguments = tuple(map(detached, arguments))
        torch.library.opcheck(operator, arguments)


def test_the_samples_call_every_operator():
    called = {
        operator.name().removesuffix(".default")
        for function, sample in SMALL
        for operator, _ in calls_of(function, sample)
    }
    assert called == registered()


def test_every_function_has_samples():
    functions = {name for name in functional.__all__ if inspect.isfunction(vars(functional)[name])}
    assert {function.name for function in FUNCTIONS} == functions


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_gradcheck(function, sample):
    leaves = sample.to(torch.float64).leaves()

    def of_leaves(*wanted):
        new = dict(zip(map(id, leaves.wanted()), wanted, strict=True))
        tensors = [new.get(id(tensor), tensor) for tensor in leaves.tensors]
        options = {name: new.get(id(value), value) for name, value in leaves.options.items()}
        result = getattr(functional, function.name)(*tensors, **options)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        return tuple(out for out in outputs if out.is_floating_point() and out.numel() > 0)

    assert torch.autograd.gradcheck(of_leaves, leaves.wanted())


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_the_oracle_agrees(function, sample):
    ours = values_and_gradients(getattr(functional, function.name), sample)
    oracle = values_and_gradients(getattr(reference, function.name), sample)
    for got, want in zip(ours, oracle, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_a_second_derivative_raises_one_clear_error(function, sample):
    leaves = sample.leaves()
    outputs = getattr(functional, function.name)(*leaves.tensors, **leaves.options)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    total = sum(output.sum() for output in outputs)
    gradients = torch.autograd.grad(total, leaves.wanted(), create_graph=True)
    if function.name == "info_nce_loss" and len(sample.tensors) == 3:
        gradients = gradients[::2]  # the own key's follows from PyTorch's arithmetic
    # That of a sample's mean is the gradient of the samples itself.
    gradients = [gradient for gradient in gradients if gradient.requires_grad]
    assert gradients or function.name == "reparameterize"
    for gradient in gradients:
        with pytest.raises(NotImplementedError, match=": the gradient is not itself differentiab"):
            gradient.sum().backward(retain_graph=True)


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_a_backward_pass_under_autocast_is_the_one_outside(function, sample):
    sample = sample.to(torch.float32)
    call = functools.partial(values_and_gradients, getattr(functional, function.name), sample)
    expected = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = call()
    assert all(torch.equal(got, want) for got, want in zip(results, expected, strict=True))


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_autocast_brings_mixed_latents_together(function, sample):
    sample = sample.to(torch.float32)
    first, *others = sample.tensors
    call = getattr(functional, function.name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = call(first.bfloat16(), *others, **sample.options)
    expected = call(first.bfloat16().float(), *others, **sample.options)
    if isinstance(results, torch.Tensor):
        results, expected = (results,), (expected,)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == (torch.float32 if want.is_floating_point() else torch.int64)
        assert torch.equal(got, want)


@pytest.mark.parametrize(("function", "sample"), SMALL, ids=IDS)
def test_meta_tensors_get_the_shapes_and_dtypes_of_real_ones(function, sample):
    for dtype in (torch.bfloat16, torch.float64):
        real, meta = (
            values_and_gradients(getattr(functional, function.name), sample.to(dtype).to(device))
            for device in ("cpu", "meta")
        )
        for got, want in zip(meta, real, strict=True):
            assert got.is_meta and got.shape == want.shape and got.dtype == want.dtype


def test_a_layer_under_autocast_is_trained():
    visual, semantic, labels = batch(14, 3, 5)
    linear = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = linear(visual.float())
        assert latents.dtype == torch.bfloat16
        losses = functional.contrastive_losses(latents, semantic.float(), labels, temperature=0.5)
    sum(losses).backward()
    assert linear.weight.grad.dtype == torch.float32 and linear.weight.grad.abs().sum() > 0


def test_a_learnable_temperature_trains_and_is_saved_with_the_module():
    visual, semantic, labels = batch(14, 3, 5)
    losses = mf.ContrastiveLosses(torch.nn.Parameter(torch.tensor(2.0)))
    optimizer = torch.optim.SGD(losses.parameters(), lr=1e-3)
    before = sum(losses(visual, semantic, labels))
    before.backward()
    optimizer.step()
    assert losses.temperature != 2 and sum(losses(visual, semantic, labels)) < before
    assert set(losses.state_dict()) == {"temperature"}


def test_options_are_shown():
    assert repr(mf.VtoVLoss(0.5, positives="in")) == (
        "VtoVLoss(positives='in', temperature=0.5, "
        "reduction='sum', normalize=True, ignore_index=-100)"
    )
