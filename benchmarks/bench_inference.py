"""Nearest class: the class latent of largest cosine similarity to each query."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import floor
import peers
import shapes
import torch
from measure import Runner
from shapes import Shape
from torch import Tensor
from torch.nn.functional import normalize

import mcfa_fast as mf


class Case(NamedTuple):
    shape: Shape
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.shape}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case(shapes.TINY, threads=1)]
    return [*(Case(shape) for shape in shapes.INFERENCE), Case(shapes.INFERENCE[-1], threads=1)]


def plain(queries: Tensor, classes: Tensor) -> Tensor:
    """The full matrix of similarities and its largest column."""
    return (normalize(queries) @ normalize(classes).T).argmax(dim=1)


@torch.no_grad()
def test_nearest_class(case: Case, record: Callable) -> None:
    queries, classes, _ = shapes.contrastive_batch(case.shape)
    index = mf.LatentIndex(case.shape.d)
    index.add(classes, torch.arange(case.shape.c))
    computations = {
        peers.LIBRARY: lambda: index.search(queries, k=1)[1][:, 0],
        peers.PLAIN: lambda: plain(queries, classes),
    }
    similarities = normalize(queries.double()) @ normalize(classes.double()).T
    best = similarities.amax(dim=1)
    for name, compute in computations.items():
        found = similarities.gather(1, compute()[:, None])[:, 0]
        assert (best - found).max() < 1e-5, f"{name}: not the nearest class"
    record(
        [
            Runner(name, lambda: None, lambda _, compute=compute: compute())
            for name, compute in computations.items()
        ],
        floor.nearest(case.shape),
        job="inference",
        **case.shape._asdict(),
        part="forward",
        threads=case.threads,
    )
