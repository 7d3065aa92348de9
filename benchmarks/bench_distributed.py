"""The three losses of a global batch on two ranks with a thread each, against one such process."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import floor
import peers
import shapes
import torch
import torch.distributed as dist
from measure import Runner, check_close
from shapes import Shape
from torch import Tensor

import mcfa_fast as mf

RANKS = 2


class Case(NamedTuple):
    """A global batch."""

    shape: Shape
    exchange: str
    threads: int = 1

    def __str__(self) -> str:
        return f"{self.shape}-{self.exchange}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The global batches of a quick or a full run."""
    if quick:
        return [Case(shapes.TINY, "gather")]
    return [Case(shapes.GLOBAL, exchange) for exchange in ("gather", "ring")]


def test_ranks_against_one_process(case: Case, record: Callable) -> None:
    with started(case) as ranks:

        def run(command: str, *asked: Connection) -> list[tuple[Tensor, ...]]:
            for rank in asked:
                rank.send(command)
            return [rank.recv() for rank in asked]

        (alone,) = run("alone, results", ranks[0])
        shares = run("together, results", *ranks)
        for loss, *_ in shares:
            check_close(peers.LIBRARY, [loss], [alone[0].double()])
        gradients = [torch.cat([share[1] for share in shares]), sum(share[2] for share in shares)]
        check_close(peers.LIBRARY, [shares[0][0], *gradients], [part.double() for part in alone])
        record(
            [
                Runner(peers.LIBRARY, lambda: None, lambda _: run("together", *ranks)),
                Runner(peers.ONE_PROCESS, lambda: None, lambda _: run("alone", ranks[0])),
            ],
            floor.contrastive("fused", case.shape).shared(RANKS),
            job="distributed",
            exchange=case.exchange,
            **case.shape._asdict(),
            part="both",
            threads=case.threads,
        )


@contextmanager
def started(case: Case) -> Iterator[list[Connection]]:
    """The ranks' ends of pipes, through which they are told what to compute."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(RANKS):
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(case, rank, str(Path(folder) / "store"), there), daemon=True
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        try:
            yield pipes
        finally:
            for pipe, process in zip(pipes, processes, strict=True):
                pipe.close()
                process.join()


def serve(case: Case, rank: int, store: str, pipe: Connection) -> None:
    """One rank: computes its share or the whole batch, until the pipe is closed."""
    torch.set_num_threads(case.threads)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    visual, semantic, labels = shapes.contrastive_batch(case.shape)
    share = slice(rank * len(visual) // RANKS, (rank + 1) * len(visual) // RANKS)
    group = mf.distributed.Ranks(exchange=case.exchange)
    while True:
        try:
            command = pipe.recv()
        except EOFError:
            break
        together = command.startswith("together")
        rows = share if together else slice(None)
        leaf = visual.detach()[rows].requires_grad_()
        losses = mf.functional.contrastive_losses(
            leaf,
            semantic,
            labels[rows],
            temperature=shapes.TEMPERATURE,
            group=group if together else None,
        )
        loss = losses.vtov + losses.vtos + losses.stov
        gradients = torch.autograd.grad(loss, [leaf, semantic])
        pipe.send((loss.detach(), *gradients) if command.endswith("results") else None)
    dist.destroy_process_group()
