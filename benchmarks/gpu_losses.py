"""The losses on a GPU against their targets, plain PyTorch, torch.compile and measured ceilings.

    python benchmarks/gpu_losses.py --output benchmarks/results/gpu_losses.json

Every case is checked before it is timed: the first instances as a batch of their own, and some rows
of the whole batch, each against the float64 definition. A check that fails ends in exit status 1.
Times are medians over CUDA events, after warm-up. With --fused only the kernels are measured that
MCFA_FAST_HOPPER chooses between; with --rivals plain PyTorch and torch.compile, which are slow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from itertools import product
from pathlib import Path
from statistics import median

import losses_only
import torch

functional, reference = losses_only.load()

# instances, width, seconds of the floor, seconds of the target
CASES = (
    (65_536, 64, 1.6e-3, 3e-3),
    (65_536, 128, None, None),
    (65_536, 256, None, None),
    (65_536, 512, 11e-3, 18e-3),
    (1_048_576, 64, 0.4, 1.0),
)
CLASSES = 1000
TEMPERATURE = 0.1


def seconds(step, repeats: int = 15, warmup: int = 3) -> float:
    """Median time of step() on the GPU."""
    for _ in range(warmup):
        step()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return median(times)


def graphed(step):
    """step as the replay of a captured graph, so that launching it costs nothing."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def ceilings() -> dict[str, float]:
    """What this GPU reaches: bytes read plus written in a copy, bfloat16 products."""
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * size**3 / seconds(lambda: a @ b)
    return {"copy_bytes_per_second": copy, "bf16_flop_per_second": product}


def batch(instances: int, width: int, dtype: torch.dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    visual = torch.randn(instances, width, device="cuda", generator=generator).to(dtype)
    semantic = torch.randn(CLASSES, width, device="cuda", generator=generator).to(dtype)
    labels = torch.randint(0, CLASSES, (instances,), device="cuda", generator=generator)
    return visual.requires_grad_(), semantic.requires_grad_(), labels


def training_step(losses, visual, semantic, labels):
    def step():
        total = sum(losses(visual, semantic, labels, temperature=TEMPERATURE))
        return torch.autograd.grad(total, (visual, semantic))

    return step


class CheckFailed(Exception):
    """A result that is not the definition's."""


def check(visual, semantic, labels) -> None:
    """Values and gradients of the first instances against the oracle."""
    part = slice(0, 2000)
    leaves = [visual.detach()[part].requires_grad_(), semantic.detach().requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    ours = training_step(functional.contrastive_losses, *leaves, labels[part])()
    oracle = training_step(reference.contrastive_losses, *exact, labels[part])()
    for got, want in zip(ours, oracle, strict=True):
        error = (got.double() - want).norm() / want.norm()
        if not error < (1e-4 if got.dtype == torch.float32 else 2e-2):
            raise CheckFailed(f"a gradient is off by {error}")


def check_rows(visual, semantic, labels) -> None:
    """VtoV's losses and gradients of some rows of the whole batch, straight from the definition."""
    leaf = visual.detach().requires_grad_()
    outputs = torch.ops.mcfa_fast.contrastive_forward(
        leaf, None, labels, torch.tensor(TEMPERATURE), True, False, False,
        "out", "none", True, -100,
    )  # fmt: skip
    losses, lse = outputs[0].detach(), outputs[3].double()
    (gradient,) = torch.autograd.grad(outputs[0].sum(), leaf)
    unit = torch.nn.functional.normalize(leaf.detach().double(), dim=1)
    counts = torch.bincount(labels, minlength=CLASSES)
    for row in range(0, len(labels), max(len(labels) // 16, 1)):
        similarity = unit @ unit[row] / TEMPERATURE
        similarity[row] = -torch.inf
        positive = labels == labels[row]
        positive[row] = False
        log_sum = similarity.logsumexp(0)
        loss = log_sum - similarity[positive].mean()
        if not (losses[row] - loss).abs() < 2e-3 * loss.abs():
            raise CheckFailed(f"the loss of row {row} is {losses[row]}, not {loss}")
        weights = (similarity - log_sum).exp() + (similarity - lse).exp()
        weights -= positive * (2.0 / (counts[labels[row]] - 1))
        slope = weights @ unit / TEMPERATURE
        slope = (slope - unit[row] * (slope @ unit[row])) / leaf[row].detach().double().norm()
        error = (gradient[row].double() - slope).norm() / slope.norm()
        if not error < 2e-2:
            raise CheckFailed(f"the gradient of row {row} is off by {error}")


def run_or_reason(measure):
    try:
        return measure()
    except CheckFailed:
        raise
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:  # the row says why a rival did not run
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        torch.cuda.empty_cache()


def measure_rivals(instances, width, dtype) -> dict:
    """The plain formula and torch.compile of it, and these kernels beside them."""
    data = batch(instances, width, dtype)
    ours = training_step(functional.contrastive_losses, *data)
    plain = training_step(reference.contrastive_losses, *data)
    compiled = training_step(torch.compile(reference.contrastive_losses), *data)
    return {
        "instances": instances,
        "width": width,
        "seconds": seconds(ours, 15, 3),
        "plain_seconds": run_or_reason(lambda: seconds(plain, 5, 2)),
        "compile_seconds": run_or_reason(lambda: seconds(compiled, 5, 2)),
    }


def measure_losses(instances, width, floor, target, dtype) -> dict:
    data = batch(instances, width, dtype)
    check(*data)
    check_rows(*data)
    step = training_step(functional.contrastive_losses, *data)
    large = instances > 200_000
    repeats = 3 if large else 15
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    row = {
        "instances": instances,
        "width": width,
        "dtype": str(dtype).removeprefix("torch."),
        "floor_seconds": floor,
        "target_seconds": target,
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
        "seconds": seconds(step, repeats, 1 if large else 3),
    }

    def forward():
        with torch.no_grad():
            functional.contrastive_losses(*data, temperature=TEMPERATURE)

    row["forward_seconds"] = seconds(forward, repeats, 1)
    if not large:
        row["graph_seconds"] = run_or_reason(lambda: seconds(graphed(step), repeats))
    return row


def measure_alignment(name, dtype, copy_bytes_per_second) -> dict:
    """``"wasserstein"``, ``"kl"``, ``"l1"`` or ``"reparameterize"``, forward and backward."""
    instances, width = 1_048_576, 64
    generator = torch.Generator("cuda").manual_seed(0)
    gaussians = [
        torch.randn(rows, width, device="cuda", generator=generator).to(dtype).requires_grad_()
        for rows in (instances, instances, CLASSES, CLASSES)
    ]
    labels = torch.randint(0, CLASSES, (instances,), device="cuda", generator=generator)

    def wasserstein():
        loss = functional.wasserstein_alignment(*gaussians, labels)
        return torch.autograd.grad(loss, gaussians)

    def kl():
        return torch.autograd.grad(functional.kl_divergence(*gaussians[:2]), gaussians[:2])

    def l1():
        wanted = gaussians[0], gaussians[2]
        return torch.autograd.grad(functional.l1_reconstruction(*wanted, labels), wanted)

    noise = torch.randn_like(gaussians[0])

    def reparameterize():
        samples = functional.reparameterize(*gaussians[:2], noise)
        return torch.autograd.grad(samples, gaussians[:2], noise)

    # Of the instances' matrices, forward reads one or two, backward again, and writes as many
    # gradients; sampling reads three and writes one, twice.
    step, matrices = {
        "wasserstein": (wasserstein, 6),
        "kl": (kl, 6),
        "l1": (l1, 3),
        "reparameterize": (reparameterize, 8),
    }[name]
    took = seconds(step)
    moved = matrices * gaussians[0].nbytes
    return {
        "loss": name,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": took,
        "graph_seconds": run_or_reason(lambda: seconds(graphed(step))),
        "bytes": moved,
        "share_of_copy_bandwidth": moved / took / copy_bytes_per_second,
    }


def environment() -> dict[str, str]:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0]
    from mcfa_fast._extension import load

    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "extension": str(load().build_info()),
        "hopper": os.environ.get("MCFA_FAST_HOPPER", "off"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).parent / "results" / "gpu_losses.json"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--quick", action="store_true", help="without the largest case")
    parser.add_argument("--fused", action="store_true", help="only latents of at most 128 numbers")
    parser.add_argument("--rivals", action="store_true", help="only the rivals, beside the losses")
    options = parser.parse_args()
    result = {
        "environment": environment(),
        "ceilings": ceilings(),
        "losses": [],
        "alignment": [],
        "rivals": [],
    }

    failed = []

    def add(kind, measure):
        try:
            row = run_or_reason(measure)
        except CheckFailed as error:
            row = f"check failed: {error}"
            failed.append(row)
        result[kind].append(row)
        print(json.dumps(row), flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")

    print(json.dumps(result["environment"] | result["ceilings"]), flush=True)
    if options.rivals:
        for width in (64, 512):
            add("rivals", lambda w=width: measure_rivals(65_536, w, torch.bfloat16))
        return
    bandwidth = result["ceilings"]["copy_bytes_per_second"]
    names = () if options.fused else ("wasserstein", "kl", "l1", "reparameterize")
    for name, dtype in product(names, (torch.bfloat16, torch.float32)):
        add("alignment", lambda n=name, d=dtype: measure_alignment(n, d, bandwidth))
    for case in CASES:
        instances, width, *_ = case
        if (options.quick and instances > 100_000) or (options.fused and width > 128):
            continue
        add("losses", lambda c=case: measure_losses(*c, torch.bfloat16))
    if not options.fused:
        add("losses", lambda: measure_losses(16_384, 64, None, None, torch.float32))
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
