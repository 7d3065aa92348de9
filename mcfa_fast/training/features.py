"""The training rows' features: on the device as a whole, or read from their file batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.models.scaling import Scaler
from mcfa_fast.training.sampler import Batch

__all__ = ["RawFeatures", "ResidentFeatures", "StreamedFeatures", "place"]

_ROWS_PER_CHUNK = 8192


class RawFeatures(NamedTuple):
    """Features [n, F] as they were given: a tensor, or a memory-mapped array of any size."""

    values: Tensor | np.memmap

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.values.shape)

    def gather(self, rows: Tensor | slice) -> Tensor:
        """Some of the rows as a float32 tensor in main memory."""
        if isinstance(self.values, Tensor):
            return self.values[rows].to("cpu", torch.float32)
        index = rows if isinstance(rows, slice) else rows.numpy()
        # A copy, also of a slice: PyTorch cannot share read-only memory.
        return torch.from_numpy(np.array(self.values[index], dtype=np.float32))

    def chunks(self) -> Iterator[Tensor]:
        """All rows in order, some thousand at a time."""
        for start in range(0, len(self.values), _ROWS_PER_CHUNK):
            yield self.gather(slice(start, start + _ROWS_PER_CHUNK))


class ResidentFeatures:
    """All features, scaled, on the device.

    Args:
        raw: The features.
        scaler: Applied once.
        device: Where they lie.
    """

    def __init__(self, raw: RawFeatures, scaler: Scaler, device: torch.device) -> None:
        self._scaled = torch.cat([scaler(chunk).to(device) for chunk in raw.chunks()])

    def batches(self, sampler: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of the sampler with its scaled features [N, F]."""
        for batch in sampler:
            yield batch, self._scaled.index_select(0, batch.rows)


class StreamedFeatures:
    """Features that stay in their file; a thread reads the next batch while one is computed.

    Args:
        raw: The features.
        scaler: Applied to every batch; it lies on the device.
        device: Where batches go.
    """

    def __init__(self, raw: RawFeatures, scaler: Scaler, device: torch.device) -> None:
        self._raw = raw
        self._scaler = scaler
        self._device = device

    def batches(self, sampler: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor]]:
        """Each batch of the sampler with its scaled features [N, F]."""
        for batch, features in _ahead(sampler, lambda batch: self._read(batch.rows)):
            yield batch, self._scaler(features.to(self._device, non_blocking=True))

    def _read(self, rows: Tensor) -> Tensor:
        features = self._raw.gather(rows.cpu())
        return features.pin_memory() if self._device.type == "cuda" else features


def place(
    raw: RawFeatures, scaler: Scaler, device: torch.device, resident: bool | None
) -> ResidentFeatures | StreamedFeatures:
    """The features on the device if they are to be, or fit with room to spare, else streamed.

    Args:
        raw: The features.
        scaler: Fitted, on the CPU; it is on `device` after the model has moved.
        device: Where training runs.
        resident: True or False decides; None takes half of the device's free memory as the limit,
            and never streams what is in memory already.
    """
    if resident is None:
        in_memory = isinstance(raw.values, Tensor) and raw.values.device.type == device.type
        needed = 4 * raw.shape[0] * raw.shape[1]
        resident = in_memory or needed <= _free_memory(device) // 2
    return (ResidentFeatures if resident else StreamedFeatures)(raw, scaler, device)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
