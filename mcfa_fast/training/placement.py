"""Where the training rows lie: on the device as a whole, or in their file, read by batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.training.ranks import ALONE, World
from mcfa_fast.training.sampler import Batch

__all__ = ["PlacedFeatures", "ResidentFeatures", "StreamedFeatures", "as_device", "place"]

Scaling = Callable[[Tensor], Tensor]


def as_device(device: torch.device | str) -> torch.device:
    """The device, if it is there.

    Raises:
        ValueError: If it is not, or has another name than PyTorch's.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device: expected a name such as 'cpu', 'cuda' or 'cuda:1', got {device!r}"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {str(found)!r} is not there; PyTorch {torch.__version__} finds "
            f"{torch.cuda.device_count()} GPUs"
        )
    return found


class PlacedFeatures(Protocol):
    """Training rows that batches are taken from."""

    def batches(
        self, sampler: Iterable[Batch], world: World = ALONE
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of the sampler with the scaled features [n, F], on the device, of the rows of
        it that are this rank's."""


class ResidentFeatures:
    """All features, scaled, on the device.

    Args:
        features: The rows.
        scaling: Applied once.
        device: Where they lie.
    """

    def __init__(self, features: FeatureRows, scaling: Scaling, device: torch.device) -> None:
        self._scaled = features.map(lambda chunk: scaling(chunk).to(device))

    def batches(
        self, sampler: Iterable[Batch], world: World = ALONE
    ) -> Iterator[tuple[Batch, Tensor]]:
        """See :class:`PlacedFeatures`."""
        for batch in sampler:
            own = batch.rows[world.rows(len(batch.rows))]
            yield batch, self._scaled.index_select(0, own)


class StreamedFeatures:
    """Features that stay in their file; a thread reads the next batch while one is computed.

    Args:
        features: The rows.
        scaling: Applied to every batch on the device.
        device: Where batches go.
    """

    def __init__(self, features: FeatureRows, scaling: Scaling, device: torch.device) -> None:
        self._features = features
        self._scaling = scaling
        self._device = device

    def batches(
        self, sampler: Iterable[Batch], world: World = ALONE
    ) -> Iterator[tuple[Batch, Tensor]]:
        """See :class:`PlacedFeatures`."""

        def read(batch: Batch) -> Tensor:
            return self._read(batch.rows[world.rows(len(batch.rows))])

        for batch, features in _ahead(sampler, read):
            yield batch, self._scaling(features.to(self._device, non_blocking=True))

    def _read(self, rows: Tensor) -> Tensor:
        features = self._features.gather(rows.cpu())
        return features.pin_memory() if self._device.type == "cuda" else features


def place(
    features: FeatureRows, scaling: Scaling, device: torch.device, resident: bool | None = None
) -> PlacedFeatures:
    """The features on the device if they are to be, or fit with room to spare, else streamed.

    Args:
        features: The rows.
        scaling: Fitted; resident rows are scaled in main memory, streamed ones on the device.
        device: Where training runs.
        resident: True or False decides; None takes half of the device's free memory as the limit,
            and never streams what is in its memory already.
    """
    if resident is None:
        where = features.in_memory
        needed = 4 * len(features) * features.width
        resident = (where is not None and where.type == device.type) or (
            needed <= _free_memory(device) // 2
        )
    return (ResidentFeatures if resident else StreamedFeatures)(features, scaling, device)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # ranks on this machine, as torchrun says
    return min(free, _memory_limit(free))


def _memory_limit(default: int) -> int:
    """What a limit on this process's address space leaves, as ``ulimit -v`` sets it."""
    try:
        import resource
    except ImportError:  # not on this system
        return default
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return default
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return max(0, limit - used)


def _ahead(
    batches: Iterable[Batch], read: Callable[[Batch], Tensor]
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with what ``read`` gives for it, which began while the one before was in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="mcfa-read") as reader:
        pending = None
        for batch in batches:
            following = batch, reader.submit(read, batch)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = following
        if pending is not None:
            yield pending[0], pending[1].result()
