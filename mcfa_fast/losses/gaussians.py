"""Reconstruction and alignment of the aligned autoencoders as modules."""

from __future__ import annotations

from typing import Optional

from torch import Tensor, nn

from mcfa_fast import ops
from mcfa_fast.losses.options import check_reduction


class WassersteinAlignment(nn.Module):
    """Wasserstein alignment (MCFA, Eq. 3).

    :func:`mcfa_fast.functional.wasserstein_alignment` as a module.

    Args:
        reduction: ``"sum"``, ``"mean"`` over instances, or ``"none"``.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mean, logvar = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
        >>> mf.WassersteinAlignment()(mean, logvar, torch.zeros(1, 2), logvar)
        tensor(5.)
    """

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        mean_a: Tensor,
        logvar_a: Tensor,
        mean_b: Tensor,
        logvar_b: Tensor,
        labels: Optional[Tensor] = None,
    ) -> Tensor:
        """The distance of a's rows ``[N, D]`` from b's rows, gathered by ``labels [N]``."""
        return ops.wasserstein(mean_a, logvar_a, mean_b, logvar_b, labels, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class KLDivergence(nn.Module):
    """KL divergence from the unit Gaussian (MCFA, Eq. 1).

    :func:`mcfa_fast.functional.kl_divergence` as a module.

    Args:
        reduction: ``"sum"``, ``"mean"`` over rows, or ``"none"``.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.KLDivergence()(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
        tensor(2.5000)
    """

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """The divergence of the Gaussians ``mean [N, D]``, ``logvar [N, D]``."""
        return ops.kl(mean, logvar, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class L1Reconstruction(nn.Module):
    """L1 distance from rows gathered by label (MCFA, Eqs. 1-2).

    :func:`mcfa_fast.functional.l1_reconstruction` as a module.

    Args:
        reduction: ``"sum"``, ``"mean"`` over rows, or ``"none"``.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> features, decoded = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0]])
        >>> mf.L1Reconstruction()(features, decoded, torch.tensor([0, 0]))
        tensor(6.)
    """

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, instances: Tensor, table: Tensor, labels: Optional[Tensor] = None) -> Tensor:
        """The distance of ``instances [N, F]`` from table's rows, gathered by ``labels [N]``."""
        return ops.l1(instances, table, labels, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
