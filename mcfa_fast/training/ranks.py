"""The processes that train together: who they are, what each has of a batch, where they meet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mcfa_fast.distributed import RankError

__all__ = ["ALONE", "RankError", "Share", "World", "draw_rows", "mean_over_batch"]


class World:
    """The processes of a group, or this one alone.

    Args:
        group: A process group of ``torch.distributed``, the same on all of its processes; None, or
            a group of one, is this process alone.

    Attributes:
        group: The group; None where this process is alone.
        rank, size: Which of how many this process is, from 0.

    Example:
        >>> alone = World()
        >>> alone.rank, alone.size, alone.rows(5)
        (0, 1, slice(0, 5, None))
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)
        self.group = None if self.size == 1 else group
        if self.rank < 0:
            raise ValueError("group: expected one that this process belongs to")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This rank's rows of so many: the ranks' shares follow one another and differ by one row
        at most, so that a rank may have none."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def share(self, labels: Tensor) -> Share | None:
        """This rank's share of a batch with these labels; None where it has the whole batch."""
        return None if self.group is None else Share(self, self.rows(len(labels)), labels)

    def sum(self, values: Tensor) -> Tensor:
        """The values of all ranks added up in place, the same bits on every rank."""
        if self.group is not None:
            with self.meeting():
                dist.all_reduce(values, group=self.group)
        return values

    def highest(self, values: Tensor) -> Tensor:
        """The highest values of all ranks, in place."""
        if self.group is not None:
            with self.meeting():
                dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self.group)
        return values

    def from_first(self, function: Callable[[], bytes]) -> bytes:
        """What ``function`` gives on rank 0, which alone calls it, on every rank.

        Raises:
            RankError: On the other ranks, if it raises on rank 0.
        """
        if self.group is None:
            return function()
        if not self.first:
            content = self._broadcast(b"")
            if content[:1] != b"+":
                raise RankError(f"rank 0 has failed: {content[1:].decode()}")
            return content[1:]
        try:
            found = function()
        except Exception as error:
            self._broadcast(b"-" + str(error).encode())
            raise
        self._broadcast(b"+" + found)
        return found

    def json_from_first(self, function: Callable[[], Any]) -> Any:
        """The same for a value that JSON knows."""
        if self.group is None:
            return function()
        return json.loads(self.from_first(lambda: json.dumps(function()).encode()))

    def gather(self, content: bytes) -> list[bytes]:
        """What every rank gives, in their order, on rank 0; nothing on the others."""
        if self.group is None:
            return [content]
        with self.meeting():
            sizes = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in self._all]
            own = torch.tensor([len(content)], device=self._device)
            dist.all_gather(sizes, own, group=self.group)
            lengths = [int(size) for size in sizes]
            # All ranks give as many bytes, the longest one's.
            buffer = torch.zeros(max(1, *lengths), dtype=torch.uint8, device=self._device)
            buffer[: len(content)] = _tensor(content)
            found = [torch.empty_like(buffer) for _ in self._all] if self.first else None
            dist.gather(buffer, found, group=self.group, group_dst=0)
        return [_bytes(part[:n]) for part, n in zip(found or (), lengths, strict=False)]

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Errors of the group's communication inside are a :class:`RankError`.

        Raises:
            RankError: If another rank is gone, or does not come within the group's time-out.
        """
        try:
            yield
        except RankError:
            raise
        except RuntimeError as error:
            if self.group is None or not _is_of_communication(error):
                raise
            raise RankError(
                f"rank {self.rank} of {self.size}: another rank has ended, or has not answered "
                f"within the group's time-out ({str(error).splitlines()[0]})"
            ) from error

    @property
    def _all(self) -> range:
        return range(self.size)

    @property
    def _device(self) -> torch.device:
        """Where bytes have to lie to be sent."""
        if dist.get_backend(self.group) == "nccl":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def _broadcast(self, content: bytes) -> bytes:
        with self.meeting():
            size = torch.tensor([len(content)], device=self._device)
            dist.broadcast(size, group=self.group, group_src=0)
            if self.first:
                buffer = _tensor(content).to(self._device)
            else:
                buffer = torch.empty(int(size), dtype=torch.uint8, device=self._device)
            dist.broadcast(buffer, group=self.group, group_src=0)
        return _bytes(buffer)


ALONE = World()
"""A process that trains alone."""


@dataclass(frozen=True, eq=False)
class Share:
    """A rank's part of a batch that several train on.

    A step computes the gradient of its share's part of the objective of the whole batch, and
    reports its part of the losses; over the ranks, both add up to those of one process.

    Attributes:
        ranks: Who trains together.
        rows: Which rows of the batch are this rank's; there may be none.
        labels: The labels [N] of the whole batch.
    """

    world: World
    rows: slice
    labels: Tensor

    @property
    def total(self) -> int:
        """Rows N of the whole batch."""
        return len(self.labels)

    @property
    def group(self) -> dist.ProcessGroup:
        """For losses that compare rows across ranks."""
        assert self.world.group is not None, "ranks that share a batch have a group"
        return self.world.group

    def once(self, term: Tensor) -> Tensor:
        """A term whose value every rank knows, counted on rank 0 alone; its gradients stay."""
        return term if self.world.first else term - term.detach()

    def sum(self, values: Tensor) -> Tensor:
        """The ranks' values added up, differentiable; each rank's gradient goes to its own."""
        return _Sum.apply(values, self.world)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, world: World) -> Tensor:
        return world.sum(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Every rank computes the same function of the sum; that each has the gradient with respect
        # to its own values makes the ranks' gradients add up to the whole one.
        return gradients[0], None


def draw_rows(draw: Callable[[int], Tensor], rows: int, share: Share | None) -> Tensor:
    """Random rows for a rank's part of a batch: those that one process would draw for it.

    Args:
        draw: Draws so many rows.
        rows: Rows of the part.
        share: Which part it is; None is the whole batch.
    """
    return draw(rows) if share is None else draw(share.total)[share.rows]


def mean_over_batch(values: Tensor, share: Share | None) -> Tensor:
    """The mean of a value per row [N]; of a share, its part of the whole batch's mean."""
    return values.mean() if share is None else values.sum() / share.total


def _is_of_communication(error: RuntimeError) -> bool:
    # Gloo's errors have no type of their own; they begin with the place in its source.
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(content), dtype=np.uint8))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().numpy().tobytes()
