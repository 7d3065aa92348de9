"""Which training rows make up each batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mcfa_fast.config import MCFAConfig

__all__ = ["Batch", "BatchSampler", "EpisodicSampler", "make_sampler"]


class Batch(NamedTuple):
    """Rows of the training set and the classes that they are compared with."""

    rows: Tensor
    """[N] int64 rows of the training set."""
    classes: Tensor
    """[C] int64 distinct class numbers, as in the training labels."""
    labels: Tensor
    """[N] int64 position in ``classes`` of each row's class."""


class EpisodicSampler:
    """Batches of c distinct classes with k instances each.

    Iterating gives one epoch of ``ceil(n / (c k))`` batches. Each draws its classes uniformly, and
    k distinct rows of each. A class with fewer than k rows gives each of them as evenly often as
    possible. Batches list the k rows of one class after those of another.

    Args:
        labels: [n] int64 class number of each training row.
        classes_per_batch: Classes c of a batch.
        instances_per_class: Instances k of each.
        generator: A CPU generator. The draws are the same whatever ``device`` is.
        shared_offsets: Draw k positions once per batch and take the rows at these positions of
            every class, instead of drawing for each class.
        offset_window: Use only the first this many rows of each class, at most the rows there are.
            With ``shared_offsets`` the smallest class limits the positions of all.
        device: Where the batches lie.

    Raises:
        ValueError: If there are fewer than c classes.

    Source:
        Liu et al., Table I (c and k).

    Example:
        >>> labels = torch.tensor([0, 0, 0, 4, 4, 4, 7, 7, 7])
        >>> sampler = EpisodicSampler(labels, 2, 2, torch.Generator().manual_seed(0))
        >>> len(sampler)
        3
        >>> batch = next(iter(sampler))
        >>> torch.equal(labels[batch.rows], batch.classes[batch.labels])
        True
    """

    def __init__(
        self,
        labels: Tensor,
        classes_per_batch: int,
        instances_per_class: int,
        generator: torch.Generator,
        *,
        shared_offsets: bool = False,
        offset_window: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        labels = labels.cpu()
        self._classes, sizes = torch.unique(labels, return_counts=True)
        if len(self._classes) < classes_per_batch:
            raise ValueError(
                f"classes_per_batch: expected at most the {len(self._classes)} classes that have "
                f"training rows, got {classes_per_batch}"
            )
        self._order = torch.argsort(labels, stable=True)
        self._starts = sizes.cumsum(0) - sizes
        self._usable = sizes if offset_window is None else sizes.clamp(max=offset_window)
        self._generator = generator
        self._device = torch.device(device)
        self._shared = shared_offsets
        self._c = classes_per_batch
        self._k = instances_per_class
        self._steps = math.ceil(len(labels) / (classes_per_batch * instances_per_class))
        local = torch.arange(classes_per_batch).repeat_interleave(instances_per_class)
        self._labels = local.to(self._device)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._steps):
            chosen = torch.randperm(len(self._classes), generator=self._generator)[: self._c]
            limits = self._usable.min()[None] if self._shared else self._usable[chosen]
            offsets = self._draw_offsets(limits)
            rows = self._order[(self._starts[chosen, None] + offsets).flatten()]
            yield Batch(
                rows.to(self._device, non_blocking=True),
                self._classes[chosen].to(self._device, non_blocking=True),
                self._labels,
            )

    def _draw_offsets(self, limits: Tensor) -> Tensor:
        """k distinct positions [len(limits), k] below each limit; repeated where k exceeds it."""
        width = int(limits.max())
        keys = torch.rand(len(limits), width, generator=self._generator)
        keys.masked_fill_(torch.arange(width) >= limits[:, None], -1.0)
        distinct = keys.topk(min(self._k, width), dim=1).indices
        return distinct.gather(1, torch.arange(self._k) % limits.clamp(max=self._k)[:, None])


class BatchSampler:
    """Plain batches: the training rows in a new random order every epoch.

    Iterating gives one epoch of ``ceil(n / batch_size)`` batches; the last one may be smaller.
    Every batch is compared with all classes, also those it has no rows of.

    Args:
        labels: [n] int64 class number of each training row.
        batch_size: Rows per batch, at most n; None takes all n.
        generator: A CPU generator. The order is the same whatever ``device`` is.
        device: Where the batches lie.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 4, 4])
        >>> sampler = BatchSampler(labels, 3, torch.Generator().manual_seed(0))
        >>> [len(batch.rows) for batch in sampler]
        [3, 2]
    """

    def __init__(
        self,
        labels: Tensor,
        batch_size: int | None,
        generator: torch.Generator,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        classes, local = torch.unique(labels, return_inverse=True)
        self._classes = classes.to(self._device)
        self._labels = local.to(self._device)
        self._batch_size = len(labels) if batch_size is None else min(batch_size, len(labels))
        self._generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self._labels), generator=self._generator)
        for rows in order.to(self._device, non_blocking=True).split(self._batch_size):
            yield Batch(rows, self._classes, self._labels[rows])


def make_sampler(
    config: MCFAConfig,
    labels: Tensor,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> EpisodicSampler | BatchSampler:
    """The sampler that ``config`` asks for."""
    if config.sampler == "batch":
        return BatchSampler(labels, config.batch_size, generator, device=device)
    return EpisodicSampler(
        labels,
        config.classes_per_batch,
        config.instances_per_class,
        generator,
        shared_offsets=config.shared_offsets,
        offset_window=config.offset_window,
        device=device,
    )
