"""The drop-ins on two ranks: what each rank gets, and what its rows get from both.

Against plain formulas over the rows of both ranks in one process, and against the library itself
where it is installed.
"""

from functools import partial

import pytest
import torch
import torch.multiprocessing
from test_compat_libraries import library
from torch.nn.functional import cross_entropy, normalize

from mcfa_fast.compat import lightly, open_clip

RANKS, ROWS, WIDTH = 2, 5, 4
CLIP = [(local, with_grad) for local in (False, True) for with_grad in (False, True)]


def views(seed):
    """Two of each of a rank's samples."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, ROWS, WIDTH, dtype=torch.float64, generator=generator)
    return tuple(normalize(values, dim=2))


def cases(rank):
    """Name and the losses: ours, and what makes the library's."""
    for local, with_grad in CLIP:
        options = {"local_loss": local, "gather_with_grad": with_grad}
        options |= {"rank": rank, "world_size": RANKS}
        yield f"clip {local} {with_grad}", clip(open_clip, options), partial(clip, None, options)
    ours = lightly.NTXentLoss(0.3, gather_distributed=True)
    yield (
        "lightly",
        ours,
        lambda: library("lightly.loss.ntx_ent_loss").NTXentLoss(0.3, gather_distributed=True),
    )
    bank = normalize(torch.arange(80.0, dtype=torch.float64).sin().view(20, WIDTH), dim=1)
    with_bank = lightly.NTXentLoss(0.3, (20, WIDTH), gather_distributed=True)
    with_bank.bank = bank.clone()
    yield "bank", twice(with_bank), lambda: twice(bank_of_lightly(bank))
    yield "metric learning", *metric_learning()
    yield "sentences", *sentences()


def clip(module, options):
    loss = (module or library("open_clip.loss")).ClipLoss(**options)
    return lambda a, b: loss(a, b, 3.0)


def twice(loss):
    return lambda a, b: loss(a, b.detach()) + loss(b, a.detach())


def bank_of_lightly(bank):
    loss = library("lightly.loss.ntx_ent_loss").NTXentLoss(0.3, (20, WIDTH), True)
    loss.memory_bank.bank = bank.clone()
    return loss


def metric_learning():
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    from mcfa_fast.compat import pytorch_metric_learning as ours

    labels = torch.arange(ROWS).repeat(2) % 3

    def wrapped(loss):
        return lambda a, b: DistributedLossWrapper(loss(0.3))(torch.cat([a, b]), labels)

    return wrapped(ours.SupConLoss), lambda: wrapped(losses.SupConLoss)


def sentences():
    from sentence_transformers.sentence_transformer import losses

    from mcfa_fast.compat import sentence_transformers as ours

    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

    def ranking(module):
        loss = module.MultipleNegativesRankingLoss(
            None, 3.0, gather_across_devices=True, directions=directions
        )
        return lambda a, b: loss.compute_loss_from_embeddings([a, b], None)

    return ranking(ours), lambda: ranking(losses)


def value_and_grads(loss, tensors):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    results = {}
    for name, ours, original in cases(rank):
        results[name] = value_and_grads(ours, views(rank))
        try:
            results[f"{name}, library"] = value_and_grads(original(), views(rank))
        except pytest.skip.Exception:
            continue
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each rank, by name."""
    pytest.importorskip("pytorch_metric_learning")
    pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def clip_formula(local, with_grad):
    """Each rank's loss from the leaves of all ranks."""

    def loss(rank, images, texts):
        def gathered(parts):
            keeping = range(RANKS) if with_grad else () if local else (rank,)
            return torch.cat([p if r in keeping else p.detach() for r, p in enumerate(parts)])

        rows = slice(rank * ROWS, (rank + 1) * ROWS) if local else slice(None)
        columns = torch.arange(RANKS * ROWS)
        total = 0.0
        for own, others in ((images, texts), (texts, images)):
            anchors = own[rank] if local else gathered(own)
            total = total + cross_entropy(3.0 * anchors @ gathered(others).T, columns[rows])
        return total / 2

    return loss


def lightly_formula(rank, first, second):
    rows = normalize(torch.cat([*first, *second]), dim=1)
    samples = torch.arange(RANKS * ROWS)
    similarity = (rows @ rows.T / 0.3).fill_diagonal_(-torch.inf)
    positive = torch.cat([samples + RANKS * ROWS, samples])
    own = torch.cat([samples[rank * ROWS :][:ROWS] + half * RANKS * ROWS for half in (0, 1)])
    return cross_entropy(similarity[own], positive[own])


FORMULAS = {f"clip {local} {grad}": clip_formula(local, grad) for local, grad in CLIP}
FORMULAS["lightly"] = lightly_formula


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients_are_those_of_the_formula(results, name):
    leaves = [[t.requires_grad_() for t in views(rank)] for rank in range(RANKS)]
    first, second = zip(*leaves, strict=True)
    losses = [FORMULAS[name](rank, first, second) for rank in range(RANKS)]
    sum(losses).backward()
    for rank in range(RANKS):
        expected = losses[rank].detach(), *(leaf.grad for leaf in leaves[rank])
        torch.testing.assert_close(results[rank][name], expected)


def test_results_are_those_of_the_libraries(results):
    for of_rank in results:
        libraries = [name for name in of_rank if name.endswith(", library")]
        assert len(libraries) >= 2  # of those that come with the tests
        for name in libraries:
            torch.testing.assert_close(of_rank[name.removesuffix(", library")], of_rank[name])
