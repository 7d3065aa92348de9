"""Which training rows make up each batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mcfa_fast.training.config import TrainingConfig

__all__ = ["Batch", "BatchSampler", "EpisodicSampler", "make_sampler"]

_DRAWS_PER_BLOCK = 2**20  # random numbers held at once: 4 MiB


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
                f"training rows, got {classes_per_batch}; choose fewer, on the command line with "
                f"--set classes_per_batch={len(self._classes)}"
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
        # Positions are drawn by ranking one random number per row that a class may give.
        self._width = int(self._usable.min() if shared_offsets else self._usable.max())
        self._block = max(1, _DRAWS_PER_BLOCK // (classes_per_batch * self._width))
        local = torch.arange(classes_per_batch).repeat_interleave(instances_per_class)
        self._labels = local.to(self._device)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self._steps, self._block):
            rows, classes = self._draw(min(self._block, self._steps - start))
            # A block crosses to the device at once; its batches are views.
            rows = rows.to(self._device, non_blocking=True)
            classes = classes.to(self._device, non_blocking=True)
            for pair in zip(rows.unbind(), classes.unbind(), strict=True):
                yield Batch(*pair, self._labels)

    def _draw(self, episodes: int) -> tuple[Tensor, Tensor]:
        """Rows [episodes, c k] and class numbers [episodes, c] of so many episodes."""
        keys = torch.rand(episodes, len(self._classes), generator=self._generator)
        chosen = keys.topk(self._c).indices
        if self._shared:
            limits = self._usable.min().expand(episodes, 1)
        else:
            limits = self._usable[chosen]
        rows = self._starts[chosen].unsqueeze(2) + self._draw_offsets(limits)
        return self._order[rows.flatten(1)], self._classes[chosen]

    def _draw_offsets(self, limits: Tensor) -> Tensor:
        """k distinct positions [..., k] below each of ``limits`` [...]; repeated if k is more."""
        limits = limits.unsqueeze(-1)
        keys = torch.rand(*limits.shape[:-1], self._width, generator=self._generator)
        keys.masked_fill_(torch.arange(self._width) >= limits, -1.0)
        distinct = keys.topk(min(self._k, self._width)).indices
        repeats = torch.arange(self._k) % limits.clamp(max=self._k)
        return distinct.gather(-1, repeats)


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
    config: TrainingConfig,
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
