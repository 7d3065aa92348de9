"""Drop-in replacements for losses that people already have in their code.

``Inter_Mode_Loss`` and ``Cross_Mode_Loss`` carry the names, constructors and forward arguments of
the MCFA authors' public code; :class:`SupConLoss` the signature of the widely copied supervised
contrastive loss. Changing the import is all it takes.
"""

from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from mcfa_fast import ops


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


class SupConLoss(nn.Module):
    r"""Supervised contrastive loss over several views of each sample, in linear memory.

    Khosla et al., "Supervised Contrastive Learning", 2020, Eq. 2 (:math:`L^{sup}_{out}`), with the
    scale :math:`\tau / \tau_{base}` and the mean over anchors of their public code. Without labels
    and mask, each sample is its own class (SimCLR). Features are used as they are: normalise them
    first, as that code expects. An anchor without any positive is left out of the mean (there it
    gives NaN).

    Args:
        temperature: :math:`\tau > 0`.
        contrast_mode: ``"all"`` (every view is an anchor) or ``"one"`` (the first view only).
        base_temperature: :math:`\tau_{base} > 0`.

    Raises:
        ValueError: An unknown ``contrast_mode``.

    Example:
        >>> import torch
        >>> from mcfa_fast.compat import SupConLoss
        >>> features = torch.nn.functional.normalize(torch.randn(8, 2, 16), dim=2)
        >>> loss = SupConLoss(temperature=0.1)(features, labels=torch.arange(8) % 3)
        >>> loss.shape
        torch.Size([])
    """

    def __init__(
        self, temperature: float = 0.07, contrast_mode: str = "all", base_temperature: float = 0.07
    ):
        super().__init__()
        if contrast_mode not in ("all", "one"):
            raise ValueError(
                f"expected `contrast_mode` to be 'all' or 'one', but got {contrast_mode!r}"
            )
        self.temperature = temperature
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature

    def forward(
        self, features: Tensor, labels: Optional[Tensor] = None, mask: Optional[Tensor] = None
    ) -> Tensor:
        """The loss of ``features [B, views, ...]`` with ``labels [B]`` or ``mask [B, B]``.

        ``mask[i, j]`` says whether sample j is a positive of sample i; it need not be symmetric. It
        is itself quadratic in B, and so is what is computed from it.

        Raises:
            ValueError: Both labels and mask, or a wrong shape.
        """
        if features.dim() < 3:
            raise ValueError(
                "expected `features` to have shape [B, views, ...], "
                f"but got {features.dim()} dimension(s)"
            )
        samples, views = features.shape[0], features.shape[1]
        if labels is not None and mask is not None:
            raise ValueError("expected either `labels` or `mask`, but got both")
        # One row per view, all first views before all second ones, so that anchors are a prefix.
        rows = features.reshape(samples, views, -1).transpose(0, 1).reshape(samples * views, -1)
        first_views_only = self.contrast_mode == "one" and views > 1
        if mask is not None:
            loss = self._masked(
                rows, mask, samples, views, samples if first_views_only else len(rows)
            )
        else:
            if labels is None:
                labels = torch.arange(samples, device=features.device)
            labels = labels.reshape(-1)
            if labels.shape[0] != samples:
                raise ValueError(
                    f"expected `labels` to have shape [B] = [{samples}], "
                    f"but got {labels.shape[0]} entries"
                )
            losses = ops.contrastive(
                rows,
                None,
                labels.repeat(views),
                self.temperature,
                True,
                False,
                False,
                "out",
                "none" if first_views_only else "mean",
                False,
                -9223372036854775807,  # no label is ignored, be it -100
            ).vtov
            loss = losses[:samples].mean() if first_views_only else losses
        return (self.temperature / self.base_temperature) * loss

    def _masked(self, rows: Tensor, mask: Tensor, samples: int, views: int, anchors: int) -> Tensor:
        if mask.dim() != 2 or mask.shape[0] != samples or mask.shape[1] != samples:
            raise ValueError(
                f"expected `mask` to have shape [B, B] = [{samples}, {samples}], "
                f"but got {list(mask.shape)}"
            )
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)[:anchors]
        weights = mask.to(rows.dtype).repeat(views, views)[:anchors].masked_fill(itself, 0.0)
        similarity = rows[:anchors] @ rows.t() / self.temperature
        log_sum = similarity.masked_fill(itself, float("-inf")).logsumexp(dim=1, keepdim=True)
        total = weights.sum(dim=1)
        mean = (weights * (similarity - log_sum).masked_fill(itself, 0.0)).sum(dim=1)
        valid = total > 0
        losses = torch.where(valid, -mean / torch.where(valid, total, 1.0), 0.0)
        return losses.sum() / valid.sum().clamp(min=1)
