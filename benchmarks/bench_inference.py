"""Nearest classes: the class latents of largest cosine similarity to each query."""

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
    k: int = 1
    threads: int = shapes.THREADS[-1]

    def __str__(self) -> str:
        return f"{self.shape}-top{self.k}-t{self.threads}"


def cases(quick: bool) -> list[Case]:
    """The comparisons of a quick or a full run."""
    if quick:
        return [Case(shapes.TINY, k, threads=1) for k in shapes.NEAREST]
    several = [*shapes.INFERENCE, *shapes.INFERENCE_FEW]
    return [
        *(Case(shape, k) for shape in several for k in shapes.NEAREST),
        Case(shapes.INFERENCE[-1], threads=1),
    ]


def plain(queries: Tensor, unit_classes: Tensor, k: int) -> Tensor:
    """The full matrix of similarities and its largest columns."""
    similarities = normalize(queries) @ unit_classes.T
    if k == 1:
        return similarities.argmax(dim=1, keepdim=True)
    return similarities.topk(k, dim=1).indices


@torch.no_grad()
def test_nearest_class(case: Case, record: Callable) -> None:
    queries, classes, _ = shapes.contrastive_batch(case.shape)
    index = mf.LatentIndex(case.shape.d)
    index.add(classes, torch.arange(case.shape.c))
    unit_classes = normalize(classes)
    computations = {
        peers.LIBRARY: lambda: index.search(queries, case.k)[1],
        peers.PLAIN: lambda: plain(queries, unit_classes, case.k),
    }
    similarities = normalize(queries.double()) @ normalize(classes.double()).T
    best = similarities.topk(case.k, dim=1).values
    for name, compute in computations.items():
        found = similarities.gather(1, compute())
        assert (best - found).abs().max() < 1e-5, f"{name}: not the nearest classes"
    record(
        [
            Runner(name, lambda: None, lambda _, compute=compute: compute())
            for name, compute in computations.items()
        ],
        floor.nearest(case.shape),
        job="inference",
        **case.shape._asdict(),
        k=case.k,
        part="forward",
        threads=case.threads,
    )
