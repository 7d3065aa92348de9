"""The ranks of a group: what a caller chooses, and how they reach each other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Union

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Work

    Given = Union["Ranks", ProcessGroup]

GRADIENTS = ("sum", "mean")
EXCHANGES = ("gather", "ring")
_WIRE_DTYPES = (None, torch.float16, torch.bfloat16, torch.float32, torch.float64)


class RankError(RuntimeError):
    """Another rank of the group has ended, hangs, or has raised an error of its own."""


@dataclass(frozen=True)
class Ranks:
    """The ranks over which a loss is taken, and how: an argument ``group`` with options.

    A process group itself is the same as ``Ranks(group)``.

    Args:
        group: A ``torch.distributed`` process group; None is the default one.
        gradients: ``"sum"``: the gradients of all ranks add up to those of one process with the
            global batch. ``"mean"``: their mean over the ranks is those, for
            DistributedDataParallel and other wrappers that average.
        exchange: ``"gather"`` keeps the rows that visit this rank, half of the global batch,
            between forward and backward; ``"ring"`` holds those of two ranks at a time, and
            lets them travel a second time in backward.
        wire_dtype: The dtype in which rows and their gradients travel, such as
            ``torch.bfloat16``; a rank's own rows are never rounded. None is their own dtype.

    Raises:
        ValueError: An unknown option.

    Example:
        >>> Ranks(gradients="mean", exchange="ring").gradients
        'mean'
    """

    group: Optional[ProcessGroup] = None
    gradients: str = "sum"
    exchange: str = "gather"
    wire_dtype: Optional[torch.dtype] = None

    def __post_init__(self) -> None:
        _check_choice("gradients", self.gradients, GRADIENTS)
        _check_choice("exchange", self.exchange, EXCHANGES)
        if self.wire_dtype not in _WIRE_DTYPES:
            raise ValueError(
                f"expected `wire_dtype` to be None or a floating dtype, but got {self.wire_dtype}"
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        words = " or ".join(map(repr, choices))
        raise ValueError(f"expected `{name}` to be {words}, but got {value!r}")


class Transfer:
    """Tensors on their way to one rank and from another; :meth:`wait` gives the latter."""

    def __init__(self, members: Members, operation: str, works: list[Work], arriving: list[Tensor]):
        self._members = members
        self._operation = operation
        self._works = works
        self._arriving = arriving

    def wait(self) -> list[Tensor]:
        """What has arrived, once both directions are done.

        Raises:
            RankError: If a rank is gone or does not answer within the group's time-out.
        """
        with self._members.reaching(self._operation):
            for work in self._works:
                work.wait()
        self._works = []
        return self._arriving


class Members:
    """This rank among those of its group.

    Args:
        given: A process group or :class:`Ranks`.

    Raises:
        TypeError: Neither of them.
        ValueError: This process is not in the group, or ``init_process_group`` has not been called.
        RuntimeError: This build of PyTorch has no ``torch.distributed``.
    """

    def __init__(self, given: Given):
        if not dist.is_available():
            raise RuntimeError(
                "`group`: this build of PyTorch has no torch.distributed; "
                "without `group` the losses need none"
            )
        if given is dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError("expected `group` to be a process group that this process is in")
        if not isinstance(given, (Ranks, dist.ProcessGroup)):
            raise TypeError(
                "expected `group` to be a torch.distributed process group or "
                f"mcfa_fast.distributed.Ranks, but got {type(given).__name__}"
            )
        self.options = given if isinstance(given, Ranks) else Ranks(given)
        world = dist.group.WORLD if dist.is_initialized() else None
        group = self.options.group or world
        if group is None:
            raise ValueError(
                "expected torch.distributed.init_process_group to have been called "
                "before a loss with `group`"
            )
        self.group = group
        self.rank = dist.get_rank(group)
        if self.rank < 0:
            raise ValueError("expected `group` to be a process group that this process is in")
        self.size = dist.get_world_size(group)

    @contextmanager
    def reaching(self, operation: str) -> Iterator[None]:
        """Turns what a backend raises into the one error of this library."""
        started = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise RankError(
                f"{operation}: rank {self.rank} of {self.size} did not reach the other ranks of "
                "its group: one of them has ended, or has not answered within the group's "
                f"time-out ({time.monotonic() - started:.1f} s waited); "
                f"{dist.get_backend(self.group)} says: {error}"
            ) from error

    def all_gather(self, operation: str, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have the same shape, in the order of ranks."""
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with self.reaching(operation):
            dist.all_gather(gathered, tensor.contiguous(), group=self.group)
        return gathered

    def transfer(
        self,
        operation: str,
        to: int,
        leaving: Sequence[Tensor],
        source: int,
        arriving: Sequence[Tensor],
    ) -> Transfer:
        """Starts to send tensors to a rank and to fill others from another.

        Tensors without entries do not travel. Between two ranks, all of them arrive in the order
        in which they were sent.
        """
        operations = [
            dist.P2POp(dist.isend, tensor.contiguous(), group=self.group, group_peer=to)
            for tensor in leaving
            if tensor.numel() > 0
        ]
        operations += [
            dist.P2POp(dist.irecv, tensor, group=self.group, group_peer=source)
            for tensor in arriving
            if tensor.numel() > 0
        ]
        works: list[Work] = []
        if operations:
            with self.reaching(operation):
                works = dist.batch_isend_irecv(operations)
        return Transfer(self, operation, works, list(arriving))

    def total(self, operation: str, own: Tensor) -> Tensor:
        """The sum of ``own`` over all ranks, the same bits on each; its gradient is that of own.

        Added up over the ranks, gradients are then those of the total.
        """
        parts = self.all_gather(operation, own.detach())
        parts[self.rank] = own
        return torch.stack(parts).sum(dim=0)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss with gradients for the way in which they are combined over the ranks."""
        if self.options.gradients == "sum" or not loss.requires_grad:
            return loss
        scaled: Tensor = _GradientTimes.apply(loss, self.size)
        return scaled


class _GradientTimes(torch.autograd.Function):
    """The tensor itself; its gradient is multiplied."""

    @staticmethod
    def forward(ctx, tensor: Tensor, factor: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        return grad * ctx.factor, None
