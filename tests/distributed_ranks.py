"""What the cases of test_distributed.py share, which run in several real processes."""

import json
import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

import mcfa_fast as mf

TIME_OUT = timedelta(seconds=60)
CASES = {}  # by number of ranks, by name
WIDTH, CLASSES = 4, 3


def case(*sizes):
    """Registers a case for these numbers of ranks."""

    def register(function):
        for size in sizes:
            CASES.setdefault(size, {})[function.__name__] = function
        return function

    return register


class Share(NamedTuple):
    """A global batch and this rank's part of it."""

    visual: Tensor
    semantic: Tensor
    labels: Tensor
    temperature: Tensor
    rows: slice

    def here(self):
        """Leaves of this rank: its own rows, and copies of what is replicated."""
        visual, semantic, labels, temperature, rows = self
        leaves = (visual[rows], semantic, temperature)
        visual, semantic, temperature = (leaf.detach().clone() for leaf in leaves)
        return (
            visual.requires_grad_(),
            semantic.requires_grad_(),
            labels[rows],
            temperature.requires_grad_(),
        )


def share(counts, rank, *, dtype=torch.float64, ignored=-100, labels=None, seed=0):
    """A batch of which rank r has ``counts[r]`` rows; a fifth of the labels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    total, start = sum(counts), sum(counts[:rank])
    visual = torch.randn(total, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    semantic = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    if labels is None:
        labels = torch.randint(0, CLASSES, (total,), generator=generator)
        labels[torch.rand(total, generator=generator) < 0.2] = ignored
    rows = slice(start, start + counts[rank])
    return Share(visual, semantic, labels, torch.tensor(0.3, dtype=torch.float64), rows)


def weighted(losses, rows=None):
    """One number of several losses; unreduced ones of rows are those of `rows` alone."""
    total = 0.0
    for name, factor in (("vtov", 1.0), ("vtos", 0.7), ("stov", -0.3)):
        loss = getattr(losses, name)
        if loss.dim() > 0:
            weights = torch.linspace(0.5, 2.0, 97, dtype=loss.dtype)
            start = rows.start if rows is not None and name != "stov" else 0
            loss = (loss * weights[start : start + len(loss)]).sum()
        total = total + factor * loss
    return total


def ours(batch, group, **options):
    """Losses of this rank, and the gradients summed over ranks of what is replicated."""
    visual, semantic, labels, temperature = batch.here()
    losses = mf.functional.contrastive_losses(
        visual, semantic, labels, temperature=temperature, group=group, **options
    )
    grads = torch.autograd.grad(weighted(losses, batch.rows), [visual, semantic, temperature])
    for replicated in grads[1:]:
        dist.all_reduce(replicated, group=group.group)
    return losses, grads


def oracle(batch, **options):
    """The same of one process with the global batch in float64."""
    visual, semantic, labels, temperature, _ = batch
    leaves = [leaf.double().requires_grad_() for leaf in (visual, semantic, temperature)]
    losses = mf.reference.contrastive_losses(
        leaves[0], leaves[1], labels, temperature=leaves[2], **options
    )
    return losses, torch.autograd.grad(weighted(losses), leaves)


def error(batch, got, wanted):
    """The largest deviation of anything, relative to the largest entry of it."""
    (losses, grads), (all_losses, all_grads) = got, wanted
    pairs = [(grads[0], all_grads[0][batch.rows]), *zip(grads[1:], all_grads[1:], strict=True)]
    for name in ("vtov", "vtos", "stov"):
        loss, of_all = getattr(losses, name), getattr(all_losses, name)
        pairs.append((loss, of_all[batch.rows] if of_all.dim() and name != "stov" else of_all))
    worst = 0.0
    for mine, reference in pairs:
        assert mine.shape == reference.shape
        if mine.numel() > 0:
            assert torch.isfinite(mine).all()
            size = max(reference.abs().max().item(), 1e-3)
            worst = max(worst, (mine.double() - reference).abs().max().item() / size)
    return worst


def close(got, wanted):
    """Asserts that float64 results agree; torch.testing takes seconds to import."""
    for mine, reference in zip(got, wanted, strict=True):
        assert mine.shape == reference.shape
        assert torch.allclose(mine, reference, rtol=1e-9, atol=1e-12), (mine, reference)


def expect(kind, words, call):
    """The call raises this error."""
    try:
        call()
    except kind as error:
        assert words in str(error), f"{words!r} is not in: {error}"
    else:
        raise AssertionError(f"no {kind.__name__}: {words}")


def run_cases(rank, size, store, folder):
    """Runs those of this number of ranks; the report is complete up to a case that ends a rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=TIME_OUT
    )
    report = {}
    for name, run in CASES[size].items():
        try:
            run(rank, size)
            report[name] = "passed"
        except Exception:
            report[name] = traceback.format_exc()
        (Path(folder) / f"{rank}.json").write_text(json.dumps(report))
    os._exit(0)  # groups with ranks that are gone would be waited for
