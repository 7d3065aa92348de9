"""Min-max scaling of features as part of the model."""

import torch
from torch import Tensor, nn

__all__ = ["MinMaxScaler"]


class MinMaxScaler(nn.Module):
    r"""Maps each column to 0..1 over the rows it was fitted on: :math:`(x - min) / (max - min)`.

    Rows outside the fitted range map outside 0..1 (nothing is clipped). A column whose range is
    below ten times the machine epsilon counts as constant and is only shifted, as in scikit-learn.
    Until it is fitted the scaler changes nothing. The fitted values are buffers, so they are saved
    with the model and follow it to its device.

    Args:
        features: Number of columns F.

    Example:
        >>> scaler = MinMaxScaler(1).fit(torch.tensor([[2.0], [4.0]]))
        >>> scaler(torch.tensor([[3.0], [5.0]])).tolist()
        [[0.5], [1.5]]
    """

    minimum: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("minimum", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @torch.jit.unused
    @torch.no_grad()
    def fit(self, features: Tensor) -> "MinMaxScaler":
        """Takes the range of each column of ``features`` [N, F]; returns the scaler itself.

        Raises:
            ValueError: If ``features`` is not [N, F] with N > 0.
        """
        if features.ndim != 2 or features.shape[1] != len(self.minimum) or len(features) == 0:
            raise ValueError(
                f"features: expected [N, {len(self.minimum)}] with N > 0, "
                f"got {list(features.shape)}"
            )
        minimum, maximum = torch.aminmax(features, dim=0)
        extent = maximum - minimum
        constant = extent < 10 * torch.finfo(extent.dtype).eps
        self.minimum.copy_(minimum)
        self.scale.copy_(torch.where(constant, torch.ones_like(extent), extent).reciprocal())
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Scales ``features`` [..., F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        columns = self.minimum.shape[0]
        if features.shape[-1] != columns:
            raise ValueError(f"expected {columns} features per row, got {features.shape[-1]}")
        return (features - self.minimum) * self.scale
