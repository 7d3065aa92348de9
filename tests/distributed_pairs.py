"""Cases of test_distributed.py: losses of pairs, and what else a batch meets."""

import torch
import torch.distributed as dist
from distributed_ranks import WIDTH, case, close, expect, share

import mcfa_fast as mf
from mcfa_fast.distributed import RankError, Ranks


def rows(counts, seed):
    """Normal rows of all ranks, as a leaf in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(counts), WIDTH)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def part(counts, rank):
    start = sum(counts[:rank])
    return slice(start, start + counts[rank])


def compare(function, oracle, rank, shares, weights=None):
    """A loss over ranks and its gradients against one process.

    `shares` has the rows of all ranks with their number on each; `weights` are those of losses
    that are not reduced: of all ranks, and of this one.
    """
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    here = [all_rows.detach()[part(counts, rank)].requires_grad_() for all_rows, counts in shares]
    own_tau = tau.detach().clone().requires_grad_()
    every, own = weights or (torch.ones(()).double(), torch.ones(()).double())
    wanted = oracle(*(all_rows for all_rows, _ in shares), temperature=tau)
    of_all = torch.autograd.grad((wanted * every).sum(), [*(rows for rows, _ in shares), tau])
    for exchange in ("gather", "ring"):
        got = function(*here, temperature=own_tau, group=Ranks(exchange=exchange))
        *grads, grad_tau = torch.autograd.grad((got * own).sum(), [*here, own_tau])
        dist.all_reduce(grad_tau)
        if got.dim() == 0:
            close([got], [wanted])
        expected = [
            grad[part(counts, rank)] for grad, (_, counts) in zip(of_all, shares, strict=False)
        ]
        close([*grads, grad_tau], [*expected, of_all[-1]])


@case(2, 4)
def two_towers(rank, size):
    for counts in ([3] * size, [1, 6, 0, 4][:size]):
        for normalize in (True, False):
            compare(
                lambda *a, n=normalize, **o: mf.functional.clip_loss(*a, normalize=n, **o),
                lambda *a, n=normalize, **o: mf.reference.clip_loss(*a, normalize=n, **o),
                rank,
                [(rows(counts, 0), counts), (rows(counts, 1), counts)],
            )
    a, b = (rows([4], seed) for seed in (2, 3))
    for module, function in (
        (mf.CLIPLoss, mf.functional.clip_loss),
        (mf.InfoNCELoss, mf.functional.info_nce_loss),
        (mf.NTXentLoss, mf.functional.nt_xent_loss),
    ):
        got = module(temperature=0.3, group=dist.group.WORLD)(a, b)
        close([got], [function(a, b, temperature=0.3, group=Ranks())])


@case(2, 4)
def two_views(rank, size):
    for counts in ([3] * size, [1, 6, 0, 4][:size]):
        for reduction in ("mean", "sum"):
            compare(
                lambda *a, r=reduction, **o: mf.functional.nt_xent_loss(*a, reduction=r, **o),
                lambda *a, r=reduction, **o: mf.reference.nt_xent_loss(*a, reduction=r, **o),
                rank,
                [(rows(counts, 0), counts), (rows(counts, 1), counts)],
            )


@case(2, 4)
def own_keys_and_queues(rank, size):
    """InfoNCE against the keys of all ranks, and against a queue of which each rank has a part."""
    counts, queue = [1, 6, 0, 4][:size], [5, 0, 3, 2][:size]
    start = sum(counts[:rank])
    weights = torch.linspace(0.5, 2.0, sum(counts), dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        pair = (weights, weights[start : start + counts[rank]]) if reduction == "none" else None
        for with_queue in (False, True):
            shares = [(rows(counts, 0), counts), (rows(counts, 1), counts)]
            if with_queue:
                shares.append((rows(queue, 2), queue))
            compare(
                lambda *a, r=reduction, **o: mf.functional.info_nce_loss(*a, reduction=r, **o),
                lambda *a, r=reduction, **o: mf.reference.info_nce_loss(*a, reduction=r, **o),
                rank,
                shares,
                pair,
            )


@case(2, 4)
def references_of_all_ranks(rank, size):
    """The references of all ranks are those of the batch; this one's classes may be elsewhere."""
    counts, bank = [2, 5, 0, 4][:size], [6, 0, 3, 1][:size]
    batch = share(counts, rank)
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 4, (sum(bank),), generator=generator)
    labels[0] = -100
    for positives in ("out", "in"):
        for reduction in ("mean", "sum"):
            options = {"positives": positives, "reduction": reduction}

            def ours(visual, references, options=options, **rest):
                return mf.functional.vtov_loss(
                    visual,
                    batch.labels[batch.rows],
                    references=references,
                    reference_labels=labels[part(bank, rank)],
                    **options,
                    **rest,
                )

            def oracle(visual, references, options=options, **rest):
                return mf.reference.vtov_loss(
                    visual,
                    batch.labels,
                    references=references,
                    reference_labels=labels,
                    **options,
                    **rest,
                )

            shares = [(rows(counts, 0), counts), (rows(bank, 1), bank)]
            compare(ours, oracle, rank, shares)


@case(2)
def memory_of_all_ranks(rank, size):
    """Each rank remembers its rows; together they are the memory of one process."""
    here = mf.CrossBatchMemory(6, WIDTH, temperature=0.3, group=Ranks()).double()
    one = mf.CrossBatchMemory(6 * size, WIDTH, temperature=0.3).double()
    for seed in range(4):  # from the third batch on, each takes the places of another
        batch = share([3, 3], rank, seed=seed)
        got = here(batch.visual[batch.rows], batch.labels[batch.rows])
        close([got], [one(batch.visual, batch.labels)])


@case(2)
def pairs_that_disagree(rank, size):
    a, b = rows([3], 0), rows([3], 1)
    second = rank == 1
    towers = mf.functional.clip_loss
    expect(
        ValueError,
        "`normalize` to be the same",
        lambda: towers(a, b, temperature=0.3, normalize=second, group=Ranks()),
    )
    expect(
        ValueError if second else RankError,
        "expected `texts` to have the shape" if second else "rank 1 has failed",
        lambda: towers(a, b[1:] if second else b, temperature=0.3, group=Ranks()),
    )
    queue = rows([2], 2).detach()
    expect(
        ValueError,
        "whether there is `negatives`" if second else "`negatives`",
        lambda: mf.functional.info_nce_loss(
            a, b, queue if second else None, temperature=0.3, group=Ranks()
        ),
    )
    twice = mf.reference.clip_loss(torch.cat([a, a]), torch.cat([b, b]), temperature=0.3)
    close([towers(a, b, temperature=0.3, group=Ranks())], [twice])
