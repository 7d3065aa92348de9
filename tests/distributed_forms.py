"""Cases of test_distributed.py: every form of the losses, in real processes."""

import torch
import torch.distributed as dist
from distributed_ranks import (
    CLASSES,
    WIDTH,
    case,
    close,
    error,
    expect,
    oracle,
    ours,
    share,
    weighted,
)

import mcfa_fast as mf
from mcfa_fast.distributed import Ranks


def every_form(rank, counts, group=None, **data):
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
                    got = ours(batch, Ranks(group, exchange=exchange), **options)
                    key = (positives, reduction, ignored, exchange)
                    worst[key] = error(batch, got, wanted)
    wrong = {key: value for key, value in worst.items() if not value < 1e-10}
    assert not wrong, wrong


@case(2, 4)
def equal_rows(rank, size):
    every_form(rank, [5] * size)


@case(4)
def three_ranks(rank, size):
    """A group of the first three, where no two ranks share what they have in common."""
    group = dist.new_group([0, 1, 2])
    if rank < 3:
        every_form(rank, [3, 6, 2], group)


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
    shared = {"temperature": torch.nn.Parameter(temperature.detach()), "group": Ranks()}
    losses = mf.functional.contrastive_losses(visual, semantic, labels, **shared)
    module = mf.ContrastiveLosses(group=dist.group.WORLD, temperature=shared["temperature"])
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
        close(list(losses), list(values))


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
        close([grad], [wanted[index][batch.rows] if index == 0 else wanted[index]])
    with torch.no_grad():
        visual, semantic, labels, _ = batch.here()
        loss = mf.functional.vtov_loss(visual, labels, temperature=0.3, group=Ranks())
    close([loss], [oracle(batch)[0].vtov])


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
    close([loss], [oracle(batch)[0].vtov])
    one = mf.functional.vtov_loss(visual, labels, temperature=0.3, group=singles[rank])
    assert torch.equal(one, mf.functional.vtov_loss(visual, labels, temperature=0.3))
    three = (True, False, False, "out", "sum", True, -100)
    alone = mf.distributed.contrastive(visual, None, labels, None, None, 0.3, *three, singles[rank])
    close([alone.vtov], [one])
    expect(
        ValueError,
        "a process group that this process is in",
        lambda: mf.functional.vtov_loss(visual, labels, temperature=0.3, group=pairs[1 - rank % 2]),
    )
