"""The contrastive losses on a GPU: large batches, determinism, captured graphs, streams."""

import os
import subprocess
import sys
from pathlib import Path

import losses_only
import pytest
import torch
from op_samples import Sample, largest_error, values_and_gradients
from op_samples import batch as batch_on_cpu

from mcfa_fast import functional, reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def batch(instances, classes, width, dtype, skew=1.0, seed=0):
    data = batch_on_cpu(instances, classes, width, seed=seed, skew=skew)
    return Sample(data).to(dtype).to("cuda").tensors


def sample_of(data, temperature, **options):
    options = {"temperature": torch.tensor(temperature, dtype=torch.float64).cuda(), **options}
    return Sample(tuple(data), options)


def assert_right(sample, tolerance):
    oracle = values_and_gradients(reference.contrastive_losses, sample.to(torch.float64))
    ours = values_and_gradients(functional.contrastive_losses, sample)
    assert largest_error(ours, oracle) <= tolerance


def allowance(dtype, temperature):
    return {
        torch.float64: 1e-11,
        torch.float32: 4e-5,
        torch.bfloat16: 1.5e-2,
        torch.float16: 3e-3,
    }[dtype] * max(1.0, 0.2 / temperature)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 2.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_match_the_oracle(dtype, temperature, positives, normalize):
    if not normalize and temperature < 1:
        temperature *= 20  # similarities of unnormalised latents are larger
    shapes = [
        # instances, classes, width, skew, reduction
        (25, 5, 64, 1.0, "sum"),
        (131, 140, 17, 1.0, "none"),
        (1000, 30, 100, 4.0, "mean"),
        (3000, 7, 200, 0.3, "none"),
        (2000, 300, 256, 1.0, "mean"),
        (700, 20, 500, 1.0, "sum"),
        (5000, 50, 64, 1.0, "sum"),
    ]
    for instances, classes, width, skew, reduction in shapes:
        data = batch(instances, classes, width, dtype, skew)
        options = {"positives": positives, "reduction": reduction, "normalize": normalize}
        assert_right(sample_of(data, temperature, **options), allowance(dtype, temperature))


@pytest.mark.parametrize("temperature", [0.02, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_wide_latents_in_many_chunks(dtype, temperature):
    data = batch(9001, 40, 264, dtype, skew=2.0)
    sample = sample_of(data, temperature, positives="in", reduction="none")
    assert_right(sample, allowance(dtype, temperature))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("positives", ["out", "in"])
def test_low_precision_is_no_worse_than_the_plain_formula_in_it(dtype, positives):
    sample = sample_of(batch(2000, 50, 64, dtype), 0.2, positives=positives, reduction="mean")
    ours, plain, oracle = (
        values_and_gradients(module.contrastive_losses, inputs)
        for module, inputs in (
            (functional, sample),
            (reference, sample),
            (reference, sample.to(torch.float64)),
        )
    )
    for got, other, expected in zip(ours, plain, oracle, strict=True):
        error = (got.double() - expected).abs().max()
        allowed = (other.double() - expected).abs().max()
        assert error <= allowed + 1e-3 * expected.abs().max()


@pytest.mark.parametrize("width", [64, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_are_bitwise_the_same(dtype, width):
    sample = sample_of(batch(20_000, 100, width, dtype, skew=2.0), 0.1, positives="in")
    first, *others = (values_and_gradients(functional.contrastive_losses, sample) for _ in range(3))
    for other in others:
        assert all(torch.equal(got, want) for got, want in zip(other, first, strict=True))


@pytest.mark.parametrize("width", [64, 300])
def test_a_captured_graph_computes_the_same_on_new_input(width):
    visual, semantic, labels = batch(900, 10, width, torch.bfloat16)
    visual.requires_grad_()

    def step():
        losses = functional.contrastive_losses(visual, semantic, labels, temperature=0.2)
        (gradient,) = torch.autograd.grad(sum(losses), visual)
        return (*losses, gradient)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    other = batch(900, 10, width, torch.bfloat16, skew=3.0, seed=1)
    with torch.no_grad():
        visual.copy_(other[0])
        semantic.copy_(other[1])
        labels.copy_(other[2])
    graph.replay()
    for got, want in zip(captured, step(), strict=True):
        assert torch.equal(got, want)


def test_two_streams_at_once_do_not_disturb_each_other():
    batches = [batch(6000, 50, 64, torch.bfloat16, seed=seed) for seed in range(2)]
    batches = [sample_of(data, 0.2) for data in batches]
    expected = [values_and_gradients(functional.contrastive_losses, data) for data in batches]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in batches]
    results = [[], []]
    for _ in range(5):
        for stream, data, into in zip(streams, batches, results, strict=True):
            with torch.cuda.stream(stream):
                into.append(values_and_gradients(functional.contrastive_losses, data))
    torch.cuda.synchronize()
    for want, into in zip(expected, results, strict=True):
        for got in into:
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_million_instances():
    instances, classes, width, temperature = 1_048_576, 1000, 64, 0.1
    generator = torch.Generator("cuda").manual_seed(0)
    visual = torch.randn(instances, width, device="cuda", generator=generator).bfloat16()
    labels = torch.randint(0, classes, (instances,), device="cuda", generator=generator)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    visual.requires_grad_()
    outputs = torch.ops.mcfa_fast.contrastive_forward(
        visual, None, labels, torch.tensor(temperature), True, False, False,
        "out", "none", True, -100,
    )  # fmt: skip
    losses, lse = outputs[0], outputs[3].double()
    (gradient,) = torch.autograd.grad(losses.sum(), visual)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 4 * 2**30
    # Some rows, straight from the definition.
    unit = torch.nn.functional.normalize(visual.detach().double(), dim=1)
    counts = torch.bincount(labels, minlength=classes)
    rows = torch.arange(0, instances, instances // 40, device="cuda")
    for row in rows.tolist():
        similarity = unit @ unit[row] / temperature
        similarity[row] = -torch.inf
        positive = labels == labels[row]
        positive[row] = False
        log_sum = similarity.logsumexp(0)
        loss = log_sum - similarity[positive].mean()
        assert abs(losses[row].item() - loss.item()) < 2e-3 * abs(loss.item())
        others = counts[labels[row]] - 1
        weights = (similarity - log_sum).exp() + (similarity - lse).exp()
        weights -= positive * (2.0 / others)
        slope = weights @ unit / temperature
        x = visual[row].detach().double()
        slope = (slope - unit[row] * (slope @ unit[row])) / x.norm()
        error = (gradient[row].double() - slope).norm() / slope.norm()
        assert error < 2e-2, error


def test_labels_of_any_size_and_a_temperature_on_either_device():
    visual, _, labels = batch(300, 4, 8, torch.float64)
    expected = functional.vtov_loss(visual, labels, temperature=0.5)
    far = torch.where(labels == -100, labels, labels * 10**15 - 3)
    on_gpu = torch.tensor(0.5, device="cuda")
    torch.testing.assert_close(
        functional.vtov_loss(visual, far, temperature=on_gpu), expected, rtol=1e-13, atol=0
    )
    on_cpu = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    functional.vtov_loss(visual, labels, temperature=on_cpu).backward()
    assert on_cpu.grad.device.type == "cpu" and on_cpu.grad != 0


def test_an_impossible_temperature():
    visual, _, labels = batch(30, 4, 8, torch.float32)
    with pytest.raises(ValueError, match="`temperature` to be positive"):
        functional.vtov_loss(visual, labels, temperature=-1.0)
    on_gpu = torch.tensor(-1.0, device="cuda")
    for positives in ("out", "in"):
        assert functional.vtov_loss(visual, labels, temperature=on_gpu, positives=positives).isnan()


def test_an_impossible_choice_of_kernels():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import losses_only, torch\n"
        "losses = losses_only.load()[0]\n"
        "visual = torch.randn(8, 4, device='cuda').bfloat16().requires_grad_()\n"
        "loss = losses.vtov_loss(visual, torch.arange(8, device='cuda') // 2, temperature=0.5)\n"
        "loss.backward()"
    )
    folder = Path(losses_only.__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "MCFA_FAST_HOPPER": "maybe", "PYTHONPATH": str(folder.parent)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "expected 'off', 'on' or 'polynomial', but got 'maybe'" in result.stderr
