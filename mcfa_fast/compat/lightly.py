"""In place of the contrastive loss of lightly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcfa_fast import ops
from mcfa_fast.compat._gather import gathered, world_size

__all__ = ["NTXentLoss"]


class NTXentLoss(nn.Module):
    """SimCLR's loss over two views of each sample, or MoCo's against a bank, in linear memory.

    Without a bank, each of the 2N rows is contrasted with all others, its other view being the
    positive (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
    2020, Eq. 1). With one, rows of the first view are contrasted with their second view and the
    bank (He et al., "Momentum Contrast", 2020, Eq. 1), which then takes in the second views of a
    batch whose first views require a gradient. Rows are normalised. The bank is not copied at
    every step, as it is in lightly: a batch enters it when the next one is seen.

    Args:
        temperature: τ > 0.
        memory_bank_size: ``(rows, width)`` of the bank; 0 for none.
        gather_distributed: Contrast with the rows of all ranks, gradients included, or let the
            bank take in those of all ranks. The loss of each rank is the mean over its own rows.

    Raises:
        ValueError: An impossible temperature, or a size of the bank that is not as above.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat.lightly import NTXentLoss
        >>> NTXentLoss(temperature=0.5)(torch.eye(4), torch.eye(4))
        tensor(0.5944)
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: Union[int, Sequence[int]] = 0,
        gather_distributed: bool = False,
    ):
        super().__init__()
        if not temperature >= 1e-8:
            raise ValueError(f"expected `temperature` to be positive, but got {temperature}")
        size = (memory_bank_size,) if isinstance(memory_bank_size, int) else tuple(memory_bank_size)
        if size != (0,) and (len(size) != 2 or min(size) < 0):
            raise ValueError(
                "expected `memory_bank_size` to be (rows, width), or 0 for no bank, "
                f"but got {memory_bank_size}"
            )
        self.temperature = temperature
        self.gather_distributed = gather_distributed
        bank = F.normalize(torch.randn(size), dim=1) if len(size) == 2 else torch.empty(0)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long), persistent=False)
        self._entering: Tensor | None = None
        self._awaited = [0]  # number of backward passes that still need the bank as it is

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """The loss of ``out0 [N, D]`` and ``out1 [N, D]``, the two views of N samples."""
        if out0.shape != out1.shape or out0.dim() != 2:
            raise ValueError(
                "expected `out0` and `out1` of one shape [N, D], "
                f"but got {list(out0.shape)} and {list(out1.shape)}"
            )
        return self._with_bank(out0, out1) if len(self.bank) > 0 else self._of_batch(out0, out1)

    def _of_batch(self, out0: Tensor, out1: Tensor) -> Tensor:
        rows = torch.cat([out0, out1])
        samples = torch.arange(len(out0), device=out0.device)
        if not self.gather_distributed or world_size() == 1:
            return self._mean(rows, None, samples.repeat(2), None, None)
        ranks, own = world_size(), torch.distributed.get_rank()
        keys = gathered(rows, with_grad=True)  # both views of a rank beside each other
        first = torch.arange(ranks, device=rows.device)[:, None, None] * len(out0)
        of_keys = (first + samples.expand(1, 2, -1)).flatten()
        itself = own * len(rows) + torch.arange(len(rows), device=rows.device)
        return self._mean(rows, keys, of_keys[itself], of_keys, itself)

    def _mean(
        self,
        rows: Tensor,
        keys: Tensor | None,
        labels: Tensor,
        key_labels: Tensor | None,
        itself: Tensor | None,
    ) -> Tensor:
        sums = ops.anchor_key(
            rows, keys, labels, key_labels, itself, self.temperature, False, "out", True, -100
        )
        return (sums.log_sum_exp - sums.positives).mean()

    def _with_bank(self, out0: Tensor, out1: Tensor) -> Tensor:
        self._enqueue()
        positive = (F.normalize(out0, dim=1) * F.normalize(out1, dim=1)).sum(1) / self.temperature
        nobody = torch.full([1], -1, device=out0.device)
        sums = ops.anchor_key(
            out0,
            self.bank.to(out0.dtype),
            nobody.expand(len(out0)),
            nobody.expand(len(self.bank)) - 1,
            None,
            self.temperature,
            False,
            "out",
            True,
            -100,
        )
        loss = (torch.logaddexp(sums.log_sum_exp, positive) - positive).mean()
        if out0.requires_grad:
            self._entering = F.normalize(out1.detach(), dim=1)
        if sums.log_sum_exp.requires_grad:
            self._awaited[0] += 1
            sums.log_sum_exp.register_hook(partial(_count_down, self._awaited))
        return loss

    @torch.no_grad()
    def _enqueue(self) -> None:
        """Let the last batch in, whose loss has needed the bank as it was until its backward."""
        batch, self._entering = self._entering, None
        if batch is None:
            return
        if self._awaited[0] > 0:  # as with two losses that are added up before their backward
            self.bank, self._awaited = self.bank.clone(), [0]
        if self.gather_distributed and world_size() > 1:
            batch = gathered(batch, with_grad=False)
        begin = int(self.bank_ptr)
        end = begin + len(batch)
        self.bank[begin:end] = batch[: len(self.bank) - begin].to(self.bank.dtype)
        self.bank_ptr.fill_(end if end < len(self.bank) else 0)


def _count_down(number: list[int], grad: Tensor) -> None:
    number[0] -= 1
