"""Latent means of any number of images, as fast as the encoder's matrix products allow."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mcfa_fast.data.checks import check_features
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.inference.products import linear
from mcfa_fast.models.mcfa import MCFA
from mcfa_fast.models.scaling import UnitScaler

__all__ = ["MeanEncoder", "encode_means", "latent_chunks"]

_CHUNK = 2**19  # features of a chunk: 2 MiB, so that a chunk and its hidden units stay in cache
# Scaled, no column's offset may be further from 0 than this for it to be folded into the bias: the
# sum of the folded products is as much larger than the result, and so is its rounding.
_LARGEST_OFFSET = 16.0


class MeanEncoder:
    r"""The model's visual encoder without what the mean does not need, in two matrix products.

    :math:`\mu = W_2 \max(W_1 \operatorname{diag}(s)\, x + (b_1 - W_1 \operatorname{diag}(s)\, m),
    0) + b_2`: the scaling :math:`s (x - m)` becomes part of the first layer's weights and bias,
    once; log-variances are not computed. Differs from :meth:`MCFA.encode_visual` by rounding only.
    Where a column's offset m is far from 0 compared with its range, it is subtracted from the
    features instead, as the sums would lose digits. Rows are brought to unit length first if the
    model does so. A linear encoder takes one product.

    Args:
        model: trained model; later changes of its weights are not seen.

    Source:
        Liu et al., Section II-A: images are classified by the means of their latents.
    """

    @torch.no_grad()
    def __init__(self, model: MCFA) -> None:
        encoder, scaler = model.visual.encoder, model.scaler
        first = encoder.mean if encoder.hidden is None else encoder.hidden
        weight, bias = first.weight.double() * scaler.scale, first.bias.double()
        is_folded = bool((scaler.offset * scaler.scale).abs().max() <= _LARGEST_OFFSET)
        if is_folded:
            bias = bias - weight @ scaler.offset.double()
        self._offset = None if is_folded else scaler.offset.clone()
        self._unit = isinstance(scaler, UnitScaler)
        dtype = first.weight.dtype
        self._layers = [(weight.to(dtype), bias.to(dtype))]
        if encoder.hidden is not None:
            self._layers.append((encoder.mean.weight.clone(), encoder.mean.bias.clone()))

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Means [N, D] of raw features [N, F] in the model's type, both on its device."""
        if self._unit:
            features = F.normalize(features, dim=1)
        if self._offset is not None:
            features = features - self._offset
        *hidden, last = self._layers
        for layer in hidden:
            features = linear(features, *layer, relu=True)
        return linear(features, *last)


def latent_chunks(model: MCFA, features: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Latent means of raw features, a chunk of rows after the other.

    A memory map is read by a second thread while chunks are computed, so it may be of any size:
    memory stays constant (pages that were read remain in the system's cache, which gives them up
    when memory is short).

    Args:
        model: trained model; it computes where it is.
        features: raw features [N, F]: float16, float32 or float64, checked but for their values.

    Yields:
        Which rows, and their means [n, D] in main memory.

    Raises:
        ValueError: at the first row with a value that is not finite in the model's type.

    Example:
        >>> from mcfa_fast.config import MCFAConfig
        >>> model = MCFA(8, 5, MCFAConfig(latent_features=4))
        >>> [(rows.start, means.shape) for rows, means in latent_chunks(model, np.zeros((3, 8)))]
        [(0, torch.Size([3, 4]))]
    """
    encode = MeanEncoder(model)
    parameter = next(model.parameters())
    size = max(16, _CHUNK // features.shape[1])
    for rows, chunk in _chunks(features, size):
        values = chunk.to(parameter.device, parameter.dtype)
        # One cheap pass: a sum is not finite if a value is not. It may also overflow.
        if not torch.isfinite(values.sum()):
            check_features(values.cpu().numpy(), first_row=rows.start)
        yield rows, encode(values).cpu()


def encode_means(model: MCFA, features: np.ndarray) -> Tensor:
    """Latent means [N, D] of raw features [N, F], in main memory (see :func:`latent_chunks`)."""
    means = torch.empty(len(features), model.config.latent_features)
    for rows, chunk in latent_chunks(model, features):
        means[rows] = chunk
    return means


def _chunks(features: np.ndarray, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows as tensors, each valid until the next is asked for."""
    chunks = list(row_chunks(len(features), size))
    if features.flags.c_contiguous and features.flags.writeable and not _is_mapped(features):
        for rows in chunks:
            yield rows, torch.from_numpy(features[rows])
        return
    # While one buffer is computed on, the other one is filled: NumPy copies without the lock.
    buffers = [np.empty((size, features.shape[1]), features.dtype) for _ in chunks[:2]]

    def read(number: int) -> np.ndarray:
        part = features[chunks[number]]
        buffer = buffers[number % 2][: len(part)]
        np.copyto(buffer, part)
        return buffer

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read, 0)
        for number, rows in enumerate(chunks):
            chunk = following.result()
            if number + 1 < len(chunks):
                following = reader.submit(read, number + 1)
            yield rows, torch.from_numpy(chunk)


def _is_mapped(features: np.ndarray) -> bool:
    return isinstance(features, np.memmap) or isinstance(features.base, np.memmap)
