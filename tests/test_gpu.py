"""The operators on a GPU: against the float64 oracle, deterministic, without synchronisation."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("no GPU here", allow_module_level=True)

_spec = importlib.util.spec_from_file_location(
    "losses_only", Path(__file__).resolve().parents[1] / "benchmarks" / "losses_only.py"
)
_losses_only = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_losses_only)
functional, reference = _losses_only.load()

if not torch._C._dispatch_has_kernel_for_dispatch_key("mcfa_fast::contrastive_forward", "CUDA"):
    pytest.skip("the extension was built without CUDA", allow_module_level=True)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NAMES = ("vtov", "vtos", "stov", "visual", "semantic", "temperature")


def batch(instances, classes, width, dtype, skew=1.0, ignored=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(instances, width, dtype=torch.float64, generator=generator)
    semantic = torch.randn(classes, width, dtype=torch.float64, generator=generator)
    labels = (torch.rand(instances, generator=generator) ** skew * classes).long()
    labels[torch.rand(instances, generator=generator) < ignored] = -100
    return visual.to(dtype).cuda(), semantic.to(dtype).cuda(), labels.cuda()


def values_and_gradients(module, visual, semantic, labels, temperature, **options):
    visual = visual.detach().requires_grad_()
    semantic = semantic.detach().requires_grad_()
    temperature = torch.tensor(temperature, dtype=torch.float64, device="cuda", requires_grad=True)
    losses = module.contrastive_losses(visual, semantic, labels, temperature=temperature, **options)
    total = 0.0
    for weight, loss in zip((1.0, 0.7, -0.3), losses, strict=True):
        weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype, device="cuda")[
            : loss.numel()
        ]
        total = total + weight * (loss * weights.reshape(loss.shape)).sum()
    gradients = torch.autograd.grad(total, (visual, semantic, temperature))
    return dict(zip(NAMES, (*losses, *gradients), strict=True))


def assert_close(ours, oracle, tolerance, skip=()):
    for name, expected in oracle.items():
        if name in skip:
            continue
        if expected.numel() == 0:
            continue
        size = expected.abs().max().item()
        size = size if size > 1e-9 else 1.0
        error = (ours[name].double() - expected).abs().max().item() / size
        assert error <= tolerance, f"{name}: {error}"


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
        (1, 1, 1, 1.0, "sum"),
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
        exact = (data[0].double(), data[1].double(), data[2])
        oracle = values_and_gradients(reference, *exact, temperature, **options)
        ours = values_and_gradients(functional, *data, temperature, **options)
        # One instance has a temperature's gradient of 0, the difference of large and rounded terms.
        skip = ("temperature",) if instances == 1 else ()
        assert_close(ours, oracle, allowance(dtype, temperature), skip)


@pytest.mark.parametrize("temperature", [0.02, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_wide_latents_in_many_chunks(dtype, temperature):
    data = batch(9001, 40, 264, dtype, skew=2.0)
    exact = (data[0].double(), data[1].double(), data[2])
    options = {"positives": "in", "reduction": "none"}
    oracle = values_and_gradients(reference, *exact, temperature, **options)
    ours = values_and_gradients(functional, *data, temperature, **options)
    assert_close(ours, oracle, allowance(dtype, temperature))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("positives", ["out", "in"])
def test_low_precision_is_no_worse_than_the_plain_formula_in_it(dtype, positives):
    data = batch(2000, 50, 64, dtype)
    options = {"positives": positives, "reduction": "mean"}
    exact = (data[0].double(), data[1].double(), data[2])
    oracle = values_and_gradients(reference, *exact, 0.2, **options)
    plain = values_and_gradients(reference, *data, 0.2, **options)
    ours = values_and_gradients(functional, *data, 0.2, **options)
    for name, expected in oracle.items():
        error = (ours[name].double() - expected).abs().max()
        allowed = (plain[name].double() - expected).abs().max()
        assert error <= allowed + 1e-3 * expected.abs().max(), name


@pytest.mark.parametrize("width", [64, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_two_runs_are_bitwise_the_same(dtype, width):
    data = batch(20_000, 100, width, dtype, skew=2.0)
    runs = [values_and_gradients(functional, *data, 0.1, positives="in") for _ in range(3)]
    for name in NAMES:
        assert torch.equal(runs[0][name], runs[1][name]), name
        assert torch.equal(runs[0][name], runs[2][name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nothing_waits_for_the_gpu(dtype):
    visual, semantic, labels = batch(500, 10, 64, dtype)
    visual.requires_grad_()
    semantic.requires_grad_()
    learnable = torch.tensor(0.3, device="cuda", requires_grad=True)
    gaussians = [visual, visual.detach() / 2, semantic, semantic.detach() / 2]
    classes = labels.clamp(min=0)
    for temperature in (learnable, 0.3):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            losses = functional.contrastive_losses(
                visual, semantic, labels, temperature=temperature, reduction="mean"
            )
            alignment = functional.wasserstein_alignment(*gaussians, classes)
            distance = functional.l1_reconstruction(visual, semantic, classes)
            samples = functional.reparameterize(visual, gaussians[1], gaussians[1])
            (sum(losses) + alignment + distance + samples.sum()).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


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
    expected = [values_and_gradients(functional, *data, 0.2) for data in batches]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in batches]
    results = [[], []]
    for _ in range(5):
        for stream, data, into in zip(streams, batches, results, strict=True):
            with torch.cuda.stream(stream):
                into.append(values_and_gradients(functional, *data, 0.2))
    torch.cuda.synchronize()
    for want, into in zip(expected, results, strict=True):
        for got in into:
            assert all(torch.equal(got[name], want[name]) for name in NAMES)


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
    folder = Path(_spec.origin).parent
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "MCFA_FAST_HOPPER": "maybe", "PYTHONPATH": str(folder.parent)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "expected 'off', 'on' or 'polynomial', but got 'maybe'" in result.stderr


def test_autocast():
    visual, semantic, labels = batch(60, 4, 8, torch.float32)
    linear = torch.nn.Linear(8, 8, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        latents = linear(visual)
        losses = functional.contrastive_losses(latents, semantic, labels, temperature=0.5)
    assert latents.dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in losses)
    sum(losses).backward()
    assert linear.weight.grad.abs().sum() > 0


def test_compile_with_fullgraph_gives_the_same():
    visual, semantic, labels = batch(200, 6, 16, torch.float32)
    for temperature in (0.3, torch.tensor(0.3, device="cuda", requires_grad=True)):
        results = []
        for losses in (
            functional.contrastive_losses,
            torch.compile(functional.contrastive_losses, fullgraph=True, backend="aot_eager"),
        ):
            leaf = visual.detach().requires_grad_()
            values = losses(leaf, semantic, labels, temperature=temperature)
            results.append((*values, *torch.autograd.grad(sum(values), leaf)))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wasserstein_alignment_matches_the_oracle(dtype, labelled):
    for instances, classes, width, reduction in [
        (5000, 30, 64, "sum"), (3000, 3, 33, "mean"), (7, 2, 1, "none"), (50_000, 1, 16, "none"),
    ]:  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        rows_b = classes if labelled else instances
        tensors = [
            torch.randn(rows, width, dtype=torch.float64, generator=generator).to(dtype).cuda()
            for rows in (instances, instances, rows_b, rows_b)
        ]
        labels = (
            torch.randint(0, classes, (instances,), generator=generator).cuda()
            if labelled
            else None
        )
        results = []
        for module, inputs in (
            (functional, tensors),
            (reference, [tensor.double() for tensor in tensors]),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            loss = module.wasserstein_alignment(*leaves, labels, reduction=reduction)
            results.append((loss, *torch.autograd.grad(loss.sum(), leaves)))
        tolerance = max(1e-12, 4 * torch.finfo(dtype).eps)
        tolerance = 1e-5 if dtype == torch.float32 else tolerance
        for ours, expected in zip(*results, strict=True):
            error = (ours.double() - expected).abs().max().item()
            assert error <= tolerance * max(expected.abs().max().item(), 1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_divergence_matches_the_oracle(dtype):
    for rows, width, reduction in [(5000, 64, "sum"), (3000, 33, "mean"), (7, 1, "none")]:
        generator = torch.Generator().manual_seed(0)
        mean, logvar = torch.randn(2, rows, width, dtype=torch.float64, generator=generator)
        inputs = mean.to(dtype).cuda(), logvar.to(dtype).cuda()
        results = []
        for module, tensors in (
            (functional, inputs),
            (reference, [tensor.double() for tensor in inputs]),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            loss = module.kl_divergence(*leaves, reduction=reduction)
            results.append((loss, *torch.autograd.grad(loss.sum(), leaves)))
        tolerance = max(1e-12, 4 * torch.finfo(dtype).eps)
        tolerance = 1e-5 if dtype == torch.float32 else tolerance
        for ours, expected in zip(*results, strict=True):
            error = (ours.double() - expected).abs().max().item()
            assert error <= tolerance * max(expected.abs().max().item(), 1e-9)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_l1_reconstruction_matches_the_oracle(dtype, labelled):
    for instances, classes, width, reduction in [
        (5000, 30, 512, "sum"), (3000, 3, 33, "mean"), (7, 2, 1, "none"), (50_000, 2, 16, "none"),
    ]:  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, (classes + 1) // 2, (instances,), generator=generator)
        rows, table = (
            torch.randn(size, width, dtype=torch.float64, generator=generator).to(dtype)
            for size in (instances, classes)
        )
        rows[:1] = table[labels[:1]]  # at distance 0
        rows, table, labels = rows.cuda(), table.cuda(), labels.cuda()
        if not labelled:
            table, labels = table[labels], None
        results = []
        for module, inputs in (
            (functional, (rows, table)),
            (reference, (rows.double(), table.double())),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            loss = module.l1_reconstruction(*leaves, labels, reduction=reduction)
            results.append((loss, *torch.autograd.grad(loss.sum(), leaves)))
        for wanted in (0, 1):  # another kernel where only one is wanted
            leaves = [rows.detach(), table.detach()]
            leaves[wanted].requires_grad_()
            functional.l1_reconstruction(*leaves, labels, reduction=reduction).sum().backward()
            assert torch.equal(leaves[wanted].grad, results[0][1 + wanted])
        tolerance = max(1e-12, 4 * torch.finfo(dtype).eps)
        tolerance = 1e-5 if dtype == torch.float32 else tolerance
        for ours, expected in zip(*results, strict=True):
            error = (ours.double() - expected).abs().max().item()
            assert error <= tolerance * max(expected.abs().max().item(), 1e-9)


@pytest.mark.parametrize("columns", [33, 64, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reparameterization_matches_the_oracle(dtype, columns):
    generator = torch.Generator().manual_seed(0)
    width = max(columns, 16)
    mean, logvar, noise, upstream = (
        torch.randn(3000, width, dtype=torch.float64, generator=generator).to(dtype).cuda()
        for _ in range(4)
    )
    results = []
    for module, inputs in (
        (functional, (mean, logvar, noise, upstream)),
        (reference, [tensor.double() for tensor in (mean, logvar, noise, upstream)]),
    ):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs[:2]]
        samples = module.reparameterize(*leaves, inputs[2][:, :columns])
        results.append((samples, *torch.autograd.grad(samples, leaves, inputs[3])))
    tolerance = max(1e-12, torch.finfo(dtype).eps)
    tolerance = 1e-5 if dtype == torch.float32 else tolerance
    for ours, expected in zip(*results, strict=True):
        error = (ours.double() - expected).abs().max().item()
        assert error <= tolerance * expected.abs().max().item()
