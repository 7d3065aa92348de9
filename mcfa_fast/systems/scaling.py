"""Scaling of inputs as part of the model."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["CentredScaler", "MinMaxScaler", "Scaler", "UnitScaler", "make_scaler"]


class Scaler(nn.Module):
    r"""Maps rows to :math:`(x - offset) \cdot scale`; until it is fitted it changes nothing.

    The fitted values are buffers, so they are saved with the model and follow it to its device.

    Args:
        features: Number of columns F.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.jit.unused
    @torch.no_grad()
    def fit(self, rows: Tensor | Iterable[Tensor]) -> "Scaler":
        """Takes offset and scale from ``rows`` [N, F], given whole or in pieces.

        Returns:
            The scaler itself.

        Raises:
            ValueError: If ``rows`` is not [N, F] with N > 0.
        """
        offset, scale = self._range(
            self._checked(piece) for piece in ([rows] if isinstance(rows, Tensor) else rows)
        )
        self.offset.copy_(offset)
        self.scale.copy_(scale)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Scales ``features`` [..., F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        columns = self.offset.shape[0]
        if features.shape[-1] != columns:
            raise ValueError(f"expected {columns} features per row, got {features.shape[-1]}")
        return (features - self.offset) * self.scale

    @torch.jit.unused
    def _range(self, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Offset and scale; a plain scaler is not fitted."""
        return self.offset, self.scale

    @torch.jit.unused
    def _checked(self, piece: Tensor) -> Tensor:
        if piece.ndim != 2 or piece.shape[1] != len(self.offset) or len(piece) == 0:
            raise ValueError(
                f"features: expected [N, {len(self.offset)}] with N > 0, got {list(piece.shape)}"
            )
        return piece


class MinMaxScaler(Scaler):
    r"""Maps each column to 0..1 over the rows it was fitted on: :math:`(x - min) / (max - min)`.

    Rows outside the fitted range map outside 0..1 (nothing is clipped). A column whose range is
    below ten times the machine epsilon counts as constant and is only shifted, as in scikit-learn.

    Args:
        features: Number of columns F.

    Example:
        >>> scaler = MinMaxScaler(1).fit(torch.tensor([[2.0], [4.0]]))
        >>> scaler(torch.tensor([[3.0], [5.0]])).tolist()
        [[0.5], [1.5]]
    """

    @torch.jit.unused
    def _range(self, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        lowest, highest = zip(*(torch.aminmax(piece, dim=0) for piece in pieces), strict=True)
        minimum = torch.stack(lowest).amin(0)
        extent = torch.stack(highest).amax(0) - minimum
        constant = extent < 10 * torch.finfo(extent.dtype).eps
        return minimum, torch.where(constant, torch.ones_like(extent), extent).reciprocal()


class UnitScaler(Scaler):
    r"""Brings rows to unit length, centres them, and to a mean squared length of 1.

    :math:`(x / \|x\| - m) / \sqrt{1 - \|m\|^2}`, where m is the mean of the fitted rows after
    they were brought to unit length. A row of zeros stays zero before centring.

    Args:
        features: Number of columns F.

    Example:
        >>> scaler = UnitScaler(2).fit(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        >>> scaler(torch.tensor([[7.0, 0.0]]))
        tensor([[ 0.7071, -0.7071]])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Scales ``features`` [..., F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        columns = self.offset.shape[0]
        if features.shape[-1] != columns:
            raise ValueError(f"expected {columns} features per row, got {features.shape[-1]}")
        return (nn.functional.normalize(features, dim=-1) - self.offset) * self.scale

    @torch.jit.unused
    def _range(self, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        total, rows = torch.zeros(len(self.offset), dtype=torch.float64), 0
        for piece in pieces:
            total += nn.functional.normalize(piece.double().cpu(), dim=1).sum(0)
            rows += len(piece)
        mean = total / rows
        # Rows that are all the same have no length left to scale.
        spread = (1 - mean.square().sum()).clamp(min=1e-6)
        return mean, spread.rsqrt().expand_as(mean)


class CentredScaler(UnitScaler):
    r"""Brings rows to unit length and centres them: :math:`x / \|x\| - m`, see :class:`UnitScaler`.

    Args:
        features: Number of columns F.

    Example:
        >>> scaler = CentredScaler(2).fit(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        >>> scaler(torch.tensor([[7.0, 0.0]]))
        tensor([[ 0.5000, -0.5000]])
    """

    @torch.jit.unused
    def _range(self, pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        mean, _ = super()._range(pieces)
        return mean, torch.ones_like(mean)


def make_scaler(kind: str, features: int) -> Scaler:
    """The scaler of a configuration: ``"minmax"``, ``"unit"`` or ``"none"``."""
    return {"minmax": MinMaxScaler, "unit": UnitScaler, "none": Scaler}[kind](features)
