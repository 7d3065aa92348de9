"""In place of the supervised contrastive loss of github.com/HobbitLong/SupContrast."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor, nn

from mcfa_fast import ops

__all__ = ["SupConLoss"]

_MASK_ROWS = 256  # of a mask that are numbers at a time


class SupConLoss(nn.Module):
    r"""Supervised contrastive loss over several views of each sample, in linear memory.

    Khosla et al., "Supervised Contrastive Learning", 2020, Eq. 2 (:math:`L^{sup}_{out}`), with the
    scale :math:`\tau / \tau_{base}` and the mean over anchors of their public code. Without labels
    and mask, each sample is its own class (SimCLR). Features are used as they are: normalise them
    first, as that code expects. An anchor without any positive counts as 0 in the mean, as there;
    so does the anchor of a batch of one, which there gives NaN.

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

        ``mask[i, j]`` is the weight of sample j as a positive of sample i, 1 or 0 as a rule; it
        need not be symmetric. Besides the mask, memory is linear in B.

        Raises:
            ValueError: Both labels and mask, a wrong shape, no sample, or a mask that requires a
                gradient.
        """
        if features.dim() < 3:
            raise ValueError(
                "expected `features` to have shape [B, views, ...], "
                f"but got {features.dim()} dimension(s)"
            )
        samples, views = features.shape[0], features.shape[1]
        if samples == 0 or views == 0:
            raise ValueError(
                "expected `features` to have one sample and one view or more, "
                f"but got shape {list(features.shape)}"
            )
        if labels is not None and mask is not None:
            raise ValueError("expected either `labels` or `mask`, but got both")
        # One row per view, all first views before all second ones, so that anchors are a prefix.
        rows = features.reshape(samples, views, -1).transpose(0, 1).reshape(samples * views, -1)
        anchors = samples if self.contrast_mode == "one" else samples * views
        if labels is None:
            classes = torch.arange(samples, device=features.device)
        else:
            classes = labels.reshape(-1)
            if classes.shape[0] != samples:
                raise ValueError(
                    f"expected `labels` to have shape [B] = [{samples}], "
                    f"but got {classes.shape[0]} entries"
                )
        sums = self._sums(rows, classes.repeat(views), anchors)
        if mask is None:
            weight = sums.counts.to(sums.log_sum_exp.dtype)
            positives = sums.positives
        else:
            positives, weight = self._masked(rows, mask, samples, views, anchors)
        some = weight >= 1e-6  # below, that code divides by 1
        log_sum_exp = torch.where(weight > 0, sums.log_sum_exp, 0.0)
        losses = (weight * log_sum_exp - positives) / torch.where(some, weight, 1.0)
        return (self.temperature / self.base_temperature) * losses.mean()

    def _sums(self, rows: Tensor, classes: Tensor, anchors: int) -> ops.AnchorKeySums:
        if anchors == len(rows):
            return ops.anchor_key(
                rows,
                None,
                classes,
                None,
                None,
                self.temperature,
                False,
                "out",
                False,
                -9223372036854775807,  # no label is ignored, be it -100
            )
        return ops.anchor_key(
            rows[:anchors],
            rows,
            classes[:anchors],
            classes,
            torch.arange(anchors, device=rows.device),
            self.temperature,
            False,
            "out",
            False,
            -9223372036854775807,
        )

    def _masked(
        self, rows: Tensor, mask: Tensor, samples: int, views: int, anchors: int
    ) -> tuple[Tensor, Tensor]:
        """Sums of each anchor's similarities to the others and of their weights, by the mask."""
        if mask.dim() != 2 or mask.shape[0] != samples or mask.shape[1] != samples:
            raise ValueError(
                f"expected `mask` to have shape [B, B] = [{samples}, {samples}], "
                f"but got {list(mask.shape)}"
            )
        if mask.requires_grad:
            raise ValueError("expected `mask` to be given numbers, but it requires a gradient")
        if rows.dtype != torch.float64:
            rows = rows.float()
        of_samples = rows.view(views, samples, -1).sum(0)
        if torch.jit.is_scripting():
            products = mask.to(rows.dtype) @ of_samples
        else:
            products = self._products(mask, of_samples)
        repeats = anchors // samples
        rows = rows[:anchors]
        itself = mask.diagonal().to(rows.dtype).repeat(repeats)
        similarity = (rows * products.repeat(repeats, 1)).sum(1) - itself * rows.square().sum(1)
        total = mask.sum(1, dtype=rows.dtype).repeat(repeats) * views - itself
        return similarity / self.temperature, total

    @torch.jit.unused
    def _products(self, mask: Tensor, of_samples: Tensor) -> Tensor:
        return _MaskProducts.apply(mask, of_samples)


class _MaskProducts(torch.autograd.Function):
    """``mask @ rows`` for a mask of any dtype, a few of its rows being numbers at a time."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        products = [part.to(rows.dtype) @ rows for part in mask.split(_MASK_ROWS)]
        return torch.cat(products)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (mask,) = ctx.saved_tensors
        result = torch.zeros_like(grad)
        for part, grads in zip(mask.split(_MASK_ROWS), grad.split(_MASK_ROWS), strict=True):
            result.addmm_(part.to(grad.dtype).T, grads)
        return None, result
