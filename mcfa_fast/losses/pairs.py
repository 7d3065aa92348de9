"""The losses of pairs as modules."""

import math
from typing import TYPE_CHECKING, Optional, Union

import torch
from torch import Tensor, nn

from mcfa_fast import distributed, ops
from mcfa_fast.losses.contrastive import WithTemperature
from mcfa_fast.losses.options import check_reduction

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from mcfa_fast.distributed import Ranks


class InfoNCELoss(WithTemperature):
    """InfoNCE: :func:`mcfa_fast.functional.info_nce_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        normalize: Divide each latent by its L2 norm first.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.InfoNCELoss(temperature=1.0)(torch.eye(2), torch.eye(2))
        tensor(0.3133)
    """

    def __init__(
        self,
        temperature: Union[float, Tensor] = 0.07,
        *,
        reduction: str = "mean",
        normalize: bool = True,
        group: "Union[Ranks, ProcessGroup, None]" = None,
    ):
        super().__init__(temperature, group)
        self.reduction = check_reduction(reduction)
        self.normalize = normalize

    def forward(self, anchors: Tensor, keys: Tensor, negatives: Optional[Tensor] = None) -> Tensor:
        """The loss of ``anchors [N, D]`` with ``keys [N, D]``, or with ``negatives [M, D]``."""
        if not torch.jit.is_scripting():
            if distributed.several(self.group):
                return distributed.info_nce(
                    anchors,
                    keys,
                    negatives,
                    self.temperature,
                    self.reduction,
                    self.normalize,
                    self.group,
                )
        return ops.info_nce(
            anchors, keys, negatives, self.temperature, self.reduction, self.normalize
        )

    def extra_repr(self) -> str:
        options = f"reduction={self.reduction!r}, normalize={self.normalize}"
        return f"{super().extra_repr()}, {options}"


class CLIPLoss(WithTemperature):
    """The loss of two towers: :func:`mcfa_fast.functional.clip_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        learnable: Train the temperature as the paper does: what is learned is ``log_scale``, the
            logarithm of 1/τ, which begins at that of `temperature` and counts as log 100 at most.
        normalize: Divide each embedding by its L2 norm first.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> loss = mf.CLIPLoss(learnable=True)
        >>> loss(torch.randn(8, 4), torch.randn(8, 4)).backward()
        >>> [name for name, _ in loss.named_parameters()]
        ['log_scale']
    """

    log_scale: Optional[Tensor]

    def __init__(
        self,
        temperature: Union[float, Tensor] = 0.07,
        *,
        learnable: bool = False,
        normalize: bool = True,
        group: "Union[Ranks, ProcessGroup, None]" = None,
    ):
        super().__init__(temperature, group)
        self.log_scale: Optional[nn.Parameter] = None
        if learnable:
            if isinstance(temperature, Tensor):
                raise TypeError(
                    "expected `temperature` to be a number with `learnable`, but got a tensor"
                )
            self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.most = math.log(100.0)
        self.normalize = normalize

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """The loss of ``images [N, D]`` with ``texts [N, D]``."""
        log_scale = self.log_scale
        if log_scale is not None:
            temperature = torch.exp(-log_scale.clamp(max=self.most))
            return self._loss(images, texts, temperature)
        return self._loss(images, texts, self.temperature)

    def _loss(self, images: Tensor, texts: Tensor, temperature: Union[float, Tensor]) -> Tensor:
        if not torch.jit.is_scripting():
            if distributed.several(self.group):
                return distributed.clip(images, texts, temperature, self.normalize, self.group)
        return ops.clip(images, texts, temperature, self.normalize)

    def extra_repr(self) -> str:
        temperature = super().extra_repr()
        if self.log_scale is not None:
            temperature = f"temperature={math.exp(-min(self.log_scale.item(), self.most)):g}"
        return f"{temperature}, normalize={self.normalize}"


class NTXentLoss(WithTemperature):
    """NT-Xent: :func:`mcfa_fast.functional.nt_xent_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.NTXentLoss(temperature=1.0)(torch.eye(2), torch.eye(2))
        tensor(0.5514)
    """

    def __init__(
        self,
        temperature: Union[float, Tensor] = 0.5,
        *,
        reduction: str = "mean",
        group: "Union[Ranks, ProcessGroup, None]" = None,
    ):
        super().__init__(temperature, group)
        self.reduction = check_reduction(reduction)

    def forward(self, views_a: Tensor, views_b: Tensor) -> Tensor:
        """The loss of two views ``[N, D]`` each."""
        if not torch.jit.is_scripting():
            if distributed.several(self.group):
                return distributed.nt_xent(
                    views_a, views_b, self.temperature, self.reduction, self.group
                )
        return ops.nt_xent(views_a, views_b, self.temperature, self.reduction)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reduction={self.reduction!r}"
