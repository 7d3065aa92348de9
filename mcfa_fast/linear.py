"""The matrix product behind bulk classification and exact search."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["linear"]

# Below these, the kernel's own set-up costs more than it saves.
_FEWEST_ROWS, _FEWEST_MULTIPLICATIONS = 2, 2**20


def linear(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    r"""Rows [N, J] of :math:`x W^\top + b`, or of its positive part. Not differentiable.

    On a CPU, float32 products go to oneDNN, the kernels that ``torch.compile`` uses: PyTorch's own
    call goes to MKL, which on processors that are not Intel's leaves AVX-512 unused (and takes 2.4
    times as long). Elsewhere, and in builds of PyTorch without oneDNN, it is PyTorch's own call.

    Args:
        rows: x [N, K].
        weight: W [J, K].
        bias: b [J]; None is 0.
        relu: return :math:`\max(\cdot, 0)`, which oneDNN fuses into the product.

    Example:
        >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0]]), relu=True)
        tensor([[3., 0.]])
    """
    if (
        len(rows) >= _FEWEST_ROWS
        and len(rows) * weight.numel() >= _FEWEST_MULTIPLICATIONS
        and rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        activation = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(
            rows.contiguous(), weight.contiguous(), bias, activation, [], ""
        )
    product = F.linear(rows, weight, bias)
    return product.relu_() if relu else product
