"""In place of the MCFA authors' losses, under the names and arguments of their public code."""

from __future__ import annotations

from typing import Tuple

from torch import Tensor, nn

from mcfa_fast import ops

__all__ = ["Cross_Mode_Loss", "Inter_Mode_Loss"]


class Inter_Mode_Loss(nn.Module):
    """The authors' visual-to-visual loss (MCFA, Eq. 4, positives inside the logarithm, summed).

    Gives what the authors' class gives on batches with equally many (two or more) instances of
    every class, and the right value on all others, where theirs is silently wrong or fails.

    Args:
        temperature: τ > 0.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat import Inter_Mode_Loss
        >>> Inter_Mode_Loss(temperature=1.0)(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(4.3944)
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__()
        self.temperature = temperature

    def forward(self, feat1: Tensor, label: Tensor) -> Tensor:
        """The loss of latents ``feat1 [N, D]`` with classes ``label [N]``."""
        return ops.contrastive(
            feat1, None, label, self.temperature, True, False, False, "in", "sum", True, -100
        ).vtov


class Cross_Mode_Loss(nn.Module):
    """The authors' cross-modal losses (MCFA, Eqs. 5 and 6, positives inside the logarithm, summed).

    Gives what the authors' class gives on batches with equally many instances of every class, and
    the right value on all others, where theirs is silently wrong or fails.

    Args:
        temperature: τ > 0.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat import Cross_Mode_Loss
        >>> losses = Cross_Mode_Loss(temperature=1.0)
        >>> vtos, stov = losses(torch.eye(2), torch.eye(2), torch.arange(2))
        >>> vtos
        tensor(0.6265)
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__()
        self.temperature = temperature

    def forward(
        self, feature_from_img: Tensor, feature_from_att: Tensor, label: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """``(VtoS, StoV)`` of latents ``[N, D]`` and ``[C, D]`` with classes ``label [N]``."""
        losses = ops.contrastive(
            feature_from_img,
            feature_from_att,
            label,
            self.temperature,
            False,
            True,
            True,
            "in",
            "sum",
            True,
            -100,
        )
        return losses.vtos, losses.stov
