"""Encoders of many images, as fast as their matrix products allow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mcfa_fast.linear import linear
from mcfa_fast.systems.scaling import Scaler, UnitScaler

__all__ = ["FoldedEncoder"]

# Scaled, no column's offset may be further from 0 than this for it to be folded into the bias: the
# sum of the folded products is as much larger than the result, and so is its rounding.
_LARGEST_OFFSET = 16.0


class FoldedEncoder:
    r"""A scaler and one or two linear layers in as many matrix products.

    :math:`\mu = W_2 \max(W_1 \operatorname{diag}(s)\, x + (b_1 - W_1 \operatorname{diag}(s)\, m),
    0) + b_2`: the scaling :math:`s (x - m)` becomes part of the first layer's weights and bias,
    once. Differs from the layers themselves by rounding only. Where a column's offset m is far from
    0 compared with its range, it is subtracted from the features instead, as the sums would lose
    digits. Rows are brought to unit length first if the scaler does so.

    Args:
        scaler: Fitted.
        last: The layer that gives the result.
        hidden: A layer with ReLU before it; None is a linear encoder. Later changes of weights are
            not seen.
    """

    @torch.no_grad()
    def __init__(self, scaler: Scaler, last: nn.Linear, hidden: nn.Linear | None = None) -> None:
        first = last if hidden is None else hidden
        weight, bias = first.weight.double() * scaler.scale, first.bias.double()
        is_folded = bool((scaler.offset * scaler.scale).abs().max() <= _LARGEST_OFFSET)
        if is_folded:
            bias = bias - weight @ scaler.offset.double()
        self._offset = None if is_folded else scaler.offset.clone()
        self._unit = isinstance(scaler, UnitScaler)
        self._like = first.weight.detach()
        dtype = first.weight.dtype
        self._layers = [(weight.to(dtype), bias.to(dtype))]
        if hidden is not None:
            self._layers.append((last.weight.clone(), last.bias.clone()))

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Encoded rows [N, D], in main memory, of raw features [N, F], wherever they are."""
        features = features.to(self._like.device, self._like.dtype)
        if self._unit:
            features = F.normalize(features, dim=1)
        if self._offset is not None:
            features = features - self._offset
        *hidden, last = self._layers
        for layer in hidden:
            features = linear(features, *layer, relu=True)
        return linear(features, *last).cpu()
