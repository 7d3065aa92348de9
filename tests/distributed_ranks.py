"""What each of several real processes does for test_distributed.py, which reads what they report.

``python distributed_ranks.py RANK SIZE STORE FOLDER`` runs every case of :data:`CASES` for that
number of ranks, in one process group, and writes what came of each to ``FOLDER/RANK.json``.
"""

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

import mcfa_fast as mf
from mcfa_fast.distributed import Ranks

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
        dist.all_reduce(replicated)
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


def every_form(rank, counts, **data):
    """Both forms of positives, all reductions and exchanges against the oracle."""
    worst = {}
    for positives in ("out", "in"):
        for reduction in ("sum", "mean", "none"):
            for ignored in (-100, 1):
                batch = share(counts, rank, ignored=ignored, **data)
                options = {
                    "positives": positives,
                    "reduction": reduction,
                    "normalize": ignored < 0,
                    "ignore_index": ignored,
                }
                wanted = oracle(batch, **options)
                for exchange in ("gather", "ring"):
                    got = ours(batch, Ranks(exchange=exchange), **options)
                    key = (positives, reduction, ignored, exchange)
                    worst[key] = error(batch, got, wanted)
    wrong = {key: value for key, value in worst.items() if not value < 1e-10}
    assert not wrong, wrong


@case(2, 3, 4)
def equal_rows(rank, size):
    every_form(rank, [5] * size)


@case(2, 4)
def unequal_rows(rank, size):
    every_form(rank, [1, 9, 4, 2][:size])


@case(2, 4)
def a_rank_without_rows(rank, size):
    every_form(rank, [0, *[6] * (size - 1)])


@case(2, 4)
def rows_on_one_rank_alone(rank, size):
    every_form(rank, [0] * (size - 1) + [7])


@case(2)
def no_rows_anywhere(rank, size):
    every_form(rank, [0] * size)


@case(2, 4)
def classes_of_one_rank_each(rank, size):
    """No class is on two ranks, and class 2 on none if there are two."""
    counts = [4] * size
    labels = (torch.arange(sum(counts)) // 4) % CLASSES
    every_form(rank, counts, labels=labels)


@case(2)
def single_functions_and_modules(rank, size):
    """Each loss by itself is that of all three; modules are the functions."""
    batch = share([3, 6], rank)
    visual, semantic, labels, temperature = batch.here()
    shared = {"temperature": temperature, "group": Ranks()}
    losses = mf.functional.contrastive_losses(visual, semantic, labels, **shared)
    module = mf.ContrastiveLosses(group=dist.group.WORLD, temperature=temperature)
    alone = (
        mf.functional.vtov_loss(visual, labels, **shared),
        mf.functional.vtos_loss(visual, semantic, labels, **shared),
        mf.functional.stov_loss(visual, semantic, labels, **shared),
    )
    modules = (
        mf.VtoVLoss(**shared)(visual, labels),
        mf.VtoSLoss(**shared)(visual, semantic, labels),
        mf.StoVLoss(**shared)(visual, semantic, labels),
    )
    for values in (alone, modules, module(visual, semantic, labels)):
        torch.testing.assert_close(torch.stack(tuple(losses)), torch.stack(tuple(values)))


@case(2, 4)
def same_bits(rank, size):
    """The value is the same on every rank, and everything is when it is computed again."""
    batch = share([7, 5, 0, 8][:size], rank, dtype=torch.float32)
    for exchange in ("gather", "ring"):
        runs = [ours(batch, Ranks(exchange=exchange), reduction="mean") for _ in range(2)]
        first, second = ([*losses, *grads] for losses, grads in runs)
        values = torch.stack(first[:3])
        every = [torch.empty_like(values) for _ in range(size)]
        dist.all_gather(every, values)
        assert all(torch.equal(values, other) for other in every)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@case(2)
def dtypes(rank, size):
    counts = [40, 24]
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)):
        batch = share(counts, rank, dtype=dtype)
        got = ours(batch, Ranks())
        assert got[0].vtov.dtype == torch.float32 and got[1][0].dtype == dtype
        worst = error(batch, got, oracle(batch))
        assert worst < tolerance, (dtype, worst)


@case(2)
def rounded_on_the_wire(rank, size):
    """bfloat16 on the wire costs its 2^-8 of what travels, and nothing of what does not."""
    batch = share([40, 24], rank)
    for exchange in ("gather", "ring"):
        ranks = Ranks(exchange=exchange, wire_dtype=torch.bfloat16)
        worst = error(batch, ours(batch, ranks), oracle(batch))
        total = torch.tensor([worst])
        dist.all_reduce(total)
        assert worst < 2e-2 and total > 1e-5, (exchange, worst)
    alone = share([0, 30], rank)
    assert error(alone, ours(alone, Ranks(wire_dtype=torch.bfloat16)), oracle(alone)) < 1e-10


@case(2)
def only_some_gradients(rank, size):
    """Whatever does not require a gradient is left out, on every rank."""
    batch = share([4, 5], rank)
    wanted = oracle(batch)[1]
    for index in range(3):
        leaves = [*batch.here()]
        for place, leaf in enumerate((leaves[0], leaves[1], leaves[3])):
            leaf.requires_grad_(place == index)
        visual, semantic, labels, temperature = leaves
        losses = mf.functional.contrastive_losses(
            visual, semantic, labels, temperature=temperature, group=Ranks(exchange="ring")
        )
        leaf = (visual, semantic, temperature)[index]
        (grad,) = torch.autograd.grad(weighted(losses), leaf)
        if index > 0:
            dist.all_reduce(grad)
        torch.testing.assert_close(grad, wanted[index][batch.rows] if index == 0 else wanted[index])
    with torch.no_grad():
        visual, semantic, labels, _ = batch.here()
        loss = mf.functional.vtov_loss(visual, labels, temperature=0.3, group=Ranks())
    torch.testing.assert_close(loss, oracle(batch)[0].vtov)


@case(4)
def ring_keeps_only_own_rows(rank, size):
    """What the exchanges hold until backward, by what autograd saves."""
    counts = [64] * size
    batch = share(counts, rank)
    rows = 64 * WIDTH * 8
    saved = {}
    for exchange in ("gather", "ring"):
        pieces = {}

        def pack(tensor, pieces=pieces):
            pieces[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        visual, _, labels, _ = batch.here()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            mf.functional.vtov_loss(
                visual, labels, temperature=0.3, group=Ranks(exchange=exchange)
            ).backward()
        saved[exchange] = sum(pieces.values())
    assert saved["gather"] - saved["ring"] >= 1.4 * rows, saved
    assert saved["ring"] < 3 * rows, saved


@case(4)
def groups_of_some_ranks(rank, size):
    """Two of the four are a batch of their own; a group of one is one process, bit by bit."""
    pairs = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    singles = [dist.new_group([r]) for r in range(size)]
    batch = share([4, 7], rank // 2, seed=rank % 2)
    visual, _, labels, _ = batch.here()
    loss = mf.functional.vtov_loss(visual, labels, temperature=0.3, group=pairs[rank % 2])
    torch.testing.assert_close(loss, oracle(batch)[0].vtov)
    one = mf.functional.vtov_loss(visual, labels, temperature=0.3, group=singles[rank])
    assert torch.equal(one, mf.functional.vtov_loss(visual, labels, temperature=0.3))
    expect(
        ValueError,
        "a process group that this process is in",
        lambda: mf.functional.vtov_loss(
            visual, labels, temperature=0.3, group=pairs[1 - rank % 2]
        ),
    )


def expect(kind, words, call):
    """The call raises this error."""
    try:
        call()
    except kind as error:
        assert words in str(error), f"{words!r} is not in: {error}"
    else:
        raise AssertionError(f"no {kind.__name__}: {words}")


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
        "number of classes",
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
        expect(ValueError, words, lambda n=name, v=values: losses(**{n: v[rank]}))
    expect(
        ValueError,
        "`exchange` to be the same",
        lambda: losses(group=Ranks(exchange=("gather", "ring")[rank])),
    )
    expect(
        ValueError,
        "the losses asked for",
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
    torch.testing.assert_close(losses().vtov, oracle(batch)[0].vtov)


def narrowed(visual, semantic, yes):
    return (visual[:, 1:], semantic[:, 1:]) if yes else (visual, semantic)


def floats(visual, semantic, yes):
    return (visual.float(), semantic.float()) if yes else (visual, semantic)


def main(rank, size, store, folder):
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


if __name__ == "__main__":
    import distributed_steps  # noqa: F401  (more cases)

    sys.modules["distributed_ranks"] = sys.modules["__main__"]
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
