"""The operators under TorchScript, torch.compile and torch.export."""

import io

import pytest
import torch
from op_samples import batch, case_ids, cases, values_and_gradients
from torch._dynamo.testing import CompileCounterWithBackend

import mcfa_fast as mf
from mcfa_fast import functional, reference

SMALL = cases("small")


def modules():
    """(name, module, sample without options) of every function and of the drop-in replacements."""
    for (function, sample), name in zip(SMALL, case_ids(SMALL), strict=True):
        options = dict(sample.options)
        if "temperature" in options:
            options["temperature"] = torch.nn.Parameter(options["temperature"].clone())
        yield name, function.module(**options), sample._replace(options={})
    visual, semantic, labels = batch(14, 3, 5, ignored=0)
    sample = SMALL[0][1]._replace(options={})
    compat = mf.compat
    for tensors, module in (
        ((visual, labels), compat.Inter_Mode_Loss(0.5)),
        ((visual, semantic, labels), compat.Cross_Mode_Loss(0.5)),
        ((torch.stack([visual, visual + 1], dim=1), labels), compat.SupConLoss(0.5)),
    ):
        yield type(module).__name__, module, sample._replace(tensors=tensors)


NAMES, *CASES = zip(*modules(), strict=True)
CASES = list(zip(*CASES, strict=True))


@pytest.mark.parametrize(("module", "sample"), CASES, ids=NAMES)
def test_torchscript_gives_the_same_after_a_round_trip(module, sample):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    expected = values_and_gradients(module, sample, module.parameters())
    results = values_and_gradients(scripted, sample, scripted.parameters())
    for got, want in zip(results, expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("module", "sample"), CASES, ids=NAMES)
def test_compile_with_fullgraph_gives_the_same(module, sample):
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = values_and_gradients(module, sample, module.parameters())
    results = values_and_gradients(compiled, sample, module.parameters())
    for got, want in zip(results, expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("module", "sample"), CASES, ids=NAMES)
def test_export_keeps_the_operators(module, sample):
    tensors = sample.tensors
    program = torch.export.export(module, tensors)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("mcfa_fast.") for name in names)
    torch.testing.assert_close(program.module()(*tensors), module(*tensors))


@pytest.mark.parametrize("as_module", [True, False])
def test_an_annealed_temperature_is_an_input_of_the_graph(as_module):
    visual, semantic, labels = batch(14, 3, 5)
    module = mf.VtoSLoss(1.0)

    def loss(visual, temperature):
        if as_module:
            return module(visual, semantic, labels)
        return functional.vtos_loss(visual, semantic, labels, temperature=temperature)

    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=graphs)
    for step in range(100):
        module.temperature = 0.05 + 0.02 * step
        leaf = visual.detach().requires_grad_()
        value = compiled(leaf, module.temperature)
        (gradient,) = torch.autograd.grad(value, leaf)
        expected = loss(leaf, module.temperature)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
    # As for any number: one graph for the first value, and one for all others.
    assert graphs.frame_count <= 2


def test_inductor_compiles_a_training_step_for_changing_batch_sizes():
    encoder = torch.nn.Linear(6, 5)

    @torch.compile(fullgraph=True, dynamic=True)
    def step(features, semantic, labels):
        losses = functional.contrastive_losses(encoder(features), semantic, labels, temperature=0.5)
        return losses.vtov + losses.vtos + losses.stov

    for instances in (12, 20):
        _, semantic, labels = batch(instances, 3, 5)
        semantic = semantic.float()
        features = torch.randn(instances, 6)
        encoder.zero_grad()
        step(features, semantic, labels).backward()
        got = encoder.weight.grad.clone()
        encoder.zero_grad()
        losses = reference.contrastive_losses(encoder(features), semantic, labels, temperature=0.5)
        sum(losses).backward()
        torch.testing.assert_close(got, encoder.weight.grad, rtol=1e-4, atol=1e-5)
