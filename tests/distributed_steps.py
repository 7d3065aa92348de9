"""Cases of test_distributed.py: steps of training, and ranks that disagree or fail."""

import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from distributed_ranks import WIDTH, case, close, expect, oracle, share, weighted
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mcfa_fast as mf
from mcfa_fast.distributed import RankError, Ranks
from mcfa_fast.distributed.ranks import Members


class Model(nn.Module):
    """An encoder with what is replicated: class latents and a temperature."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.encoder = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.semantic = nn.Parameter(torch.randn(3, WIDTH, generator=generator).double())
        self.temperature = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        with torch.no_grad():
            for parameter in self.encoder.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, visual, labels, group):
        losses = mf.functional.contrastive_losses(
            torch.tanh(self.encoder(visual)),
            self.semantic,
            labels,
            temperature=self.temperature,
            reduction="mean",
            group=group,
        )
        return weighted(losses)


def after_step(model, losses):
    """The weights after a step on these losses, each of which is computed by a call."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for loss in losses:
        loss().backward()
    optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@case(2)
def data_parallel_step(rank, size):
    """DistributedDataParallel averages: gradients="mean" gives the weights of one process."""
    batch = share([4, 6], rank)
    rows, labels = batch.visual[batch.rows], batch.labels[batch.rows]
    model = Model()
    wanted = after_step(model, [lambda: model(batch.visual, batch.labels, None)])
    for gradients in ("mean", "sum"):
        parallel = DistributedDataParallel(Model())
        group = Ranks(gradients=gradients)
        got = after_step(parallel, [lambda call=parallel, g=group: call(rows, labels, g)])
        if gradients == "sum":
            step = [a - b for a, b in zip(got, Model().parameters(), strict=True)]
            got = [size * a + b for a, b in zip(step, Model().parameters(), strict=True)]
        close(got, wanted)


@case(2)
def documented_step(rank, size):
    """The example of docs/large_batches.md, whose group there is already."""
    page = (Path(__file__).parents[1] / "docs" / "large_batches.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = {}
    with mock.patch("torch.distributed.init_process_group"):
        exec(compile(code, "large_batches.md", "exec"), names)
    torch.manual_seed(0)
    encoder = nn.Linear(512, 64)
    images, descriptors = torch.randn(256, 512), torch.randn(30, 64)
    losses = mf.functional.contrastive_losses(
        encoder(images), descriptors, torch.arange(256) % 30, temperature=0.1, reduction="mean"
    )
    sum(losses).backward()
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    for mine, wanted in zip(names["encoder"].parameters(), encoder.parameters(), strict=True):
        assert (mine - wanted).abs().max() < 1e-6


@case(2)
def accumulated_steps(rank, size):
    """The gradients of two global batches add up, the first of them without a reduction."""
    batches = [share([4, 6], rank), share([5, 1], rank, seed=1)]
    group = Ranks(gradients="mean", exchange="ring")
    model = Model()
    wanted = after_step(
        model, [lambda b=batch: model(b.visual, b.labels, None) for batch in batches]
    )
    parallel = DistributedDataParallel(Model())

    def loss(batch):
        return parallel(batch.visual[batch.rows], batch.labels[batch.rows], group)

    with parallel.no_sync():
        loss(batches[0]).backward()
    got = after_step(parallel, [lambda: loss(batches[1])])
    close(got, wanted)


@case(2)
def compiled_model(rank, size):
    """A model with the loss inside gives the same under torch.compile, around one graph break."""
    batch = share([4, 6], rank)
    rows, labels = batch.visual[batch.rows], batch.labels[batch.rows]
    model = Model()
    compiled = torch.compile(model, backend="aot_eager")
    for group in (Ranks(), dist.group.WORLD):
        results = []
        for call in (model, compiled, compiled):
            loss = call(rows, labels, group)
            results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        close(results[1], results[0])
        close(results[2], results[0])


@case(2)
def ranks_that_disagree(rank, size):
    """One error on every rank, and the group can be used afterwards."""
    batch = share([4, 5], rank)
    visual, semantic, labels, _ = batch.here()

    def losses(visual=visual, semantic=semantic, labels=labels, temperature=0.3, **options):
        options.setdefault("group", Ranks())
        return mf.functional.contrastive_losses(
            visual, semantic, labels, temperature=temperature, **options
        )

    second = rank == 1
    expect(ValueError, "columns of `visual`", lambda: losses(*narrowed(visual, semantic, second)))
    expect(ValueError, "dtype of `visual`", lambda: losses(*floats(visual, semantic, second)))
    expect(
        ValueError,
        "rows of `semantic`",
        lambda: losses(semantic=torch.cat([semantic, semantic]) if second else semantic),
    )
    expect(
        ValueError,
        "whether `visual` requires a gradient",
        lambda: losses(visual.detach() if second else visual),
    )
    for name, values in (
        ("temperature", (0.3, 0.4)),
        ("positives", ("out", "in")),
        ("reduction", ("sum", "mean")),
        ("normalize", (True, False)),
        ("ignore_index", (-100, -1)),
    ):
        words = f"`{name}` to be the same on every rank of `group`, but got {values[0]} on rank 0"
        options = {name: values[rank], "labels": labels.clamp(min=0)}  # ignored by neither
        expect(ValueError, words, lambda o=options: losses(**o))
    expect(
        ValueError,
        "`exchange` to be the same",
        lambda: losses(group=Ranks(exchange=("gather", "ring")[rank])),
    )
    expect(
        ValueError,
        "the loss to be the same",
        lambda: (
            mf.functional.vtov_loss(visual, labels, temperature=0.3, group=Ranks())
            if second
            else losses()
        ),
    )
    for name, bad in (
        ("in [0, 3)", {"labels": labels.masked_fill(labels == labels, 7)}),
        ("`labels`", {"labels": labels[1:]}),
        ("`temperature`", {"temperature": -1.0}),
        ("`reduction`", {"reduction": "median"}),
    ):
        kind = ValueError if second else mf.distributed.RankError
        words = name if second else "rank 1 has failed: ValueError"
        expect(kind, words, lambda b=bad: losses(**b) if second else losses())
    elsewhere = (visual.to("meta"), semantic.to("meta"), labels.to("meta"))
    expect(ValueError, "rows on the CPU for a `group` of backend gloo", lambda: losses(*elsewhere))
    close([losses().vtov], [oracle(batch)[0].vtov])


def narrowed(visual, semantic, yes):
    return (visual[:, 1:], semantic[:, 1:]) if yes else (visual, semantic)


def floats(visual, semantic, yes):
    return (visual.float(), semantic.float()) if yes else (visual, semantic)


@case(4)
def ranks_that_hang_or_end(rank, size):
    """In the middle of a step; the others raise one error, within the time-out of the group."""
    hanging = dist.new_group([0, 1, 2], timeout=timedelta(seconds=4))
    ending = dist.new_group([0, 1, 3], timeout=timedelta(seconds=30))
    if rank == 2:
        step_of(hanging, 2, signal.SIGSTOP)
    elif rank == 3:
        step_of(ending, 2, signal.SIGKILL)
    else:
        for group, words, seconds in ((hanging, "has not answered", 20), (ending, "ended", 20)):
            started = time.monotonic()
            expect(RankError, words, lambda g=group: step_of(g, rank))
            expect(RankError, f"rank {rank} of 3", lambda g=group: step_of(g, rank))
            assert time.monotonic() - started < seconds


def step_of(group, rank, signal_to_itself=None):
    """Forward and backward, in which this process may end or stop itself."""
    if signal_to_itself is not None:
        transfer = Members.transfer

        def last(members, operation, *rest):
            if operation == "gradients of rows":
                os.kill(os.getpid(), signal_to_itself)
            return transfer(members, operation, *rest)

        Members.transfer = last
    visual, _, labels, _ = share([4, 5, 6], rank).here()
    mf.functional.vtov_loss(visual, labels, temperature=0.3, group=group).backward()
