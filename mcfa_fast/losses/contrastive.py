"""The contrastive losses of MCFA as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

import torch
from torch import Tensor, nn

from mcfa_fast import distributed, ops
from mcfa_fast.losses.options import check_number, check_positives, check_reduction
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from mcfa_fast.distributed import Ranks


class WithTemperature(nn.Module):
    """A temperature: a number, a buffer or a parameter; and the ranks that share a batch."""

    def __init__(
        self,
        temperature: Union[float, Tensor],
        group: Union[Ranks, ProcessGroup, None] = None,
    ):
        super().__init__()
        self.group = group
        self.temperature: Union[float, Tensor]
        if isinstance(temperature, nn.Parameter):
            self.temperature = temperature
        elif isinstance(temperature, Tensor):
            if temperature.requires_grad:
                raise ValueError(
                    "expected `temperature` to be a torch.nn.Parameter if it is to be trained, but "
                    "got a tensor that requires a gradient, which no optimizer would be given"
                )
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = check_number("temperature", temperature)

    def __prepare_scriptable__(self) -> WithTemperature:
        """Called by ``torch.jit.script``, which cannot have what is between ranks."""
        if self.group is not None:
            raise TypeError("a loss with `group` cannot be scripted: TorchScript knows no ranks")
        return self

    def extra_repr(self) -> str:
        temperature = self.temperature
        value = temperature.item() if isinstance(temperature, Tensor) else temperature
        return f"temperature={value:g}"


class ContrastiveOptions(WithTemperature):
    """The options that the contrastive losses share."""

    def __init__(
        self,
        temperature: Union[float, Tensor] = 2.0,
        *,
        reduction: str = "sum",
        normalize: bool = True,
        ignore_index: int = -100,
        group: Union[Ranks, ProcessGroup, None] = None,
    ):
        super().__init__(temperature, group)
        self.reduction = check_reduction(reduction)
        self.normalize = normalize
        self.ignore_index = ignore_index

    def _losses(
        self,
        visual: Tensor,
        semantic: Optional[Tensor],
        labels: Tensor,
        vtov: bool,
        vtos: bool,
        stov: bool,
        positives: str,
        references: Optional[Tensor] = None,
        reference_labels: Optional[Tensor] = None,
    ) -> ContrastiveLossValues:
        if not torch.jit.is_scripting():
            if distributed.several(self.group):
                return distributed.contrastive(
                    visual,
                    semantic,
                    labels,
                    references,
                    reference_labels,
                    self.temperature,
                    vtov,
                    vtos,
                    stov,
                    positives,
                    self.reduction,
                    self.normalize,
                    self.ignore_index,
                    self.group,
                )
        return ops.contrastive_with_references(
            visual,
            semantic,
            labels,
            references,
            reference_labels,
            self.temperature,
            vtov,
            vtos,
            stov,
            positives,
            self.reduction,
            self.normalize,
            self.ignore_index,
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, reduction={self.reduction!r}, "
            f"normalize={self.normalize}, ignore_index={self.ignore_index}"
        )


class OptionsWithPositives(ContrastiveOptions):
    """The same with a choice of the positives' form."""

    def __init__(
        self, temperature: Union[float, Tensor] = 2.0, *, positives: str = "out", **options: Any
    ):
        super().__init__(temperature, **options)
        self.positives = check_positives(positives)

    def extra_repr(self) -> str:
        return f"positives={self.positives!r}, {super().extra_repr()}"


class VtoVLoss(OptionsWithPositives):
    """Visual-to-visual loss (MCFA, Eq. 4): :func:`mcfa_fast.functional.vtov_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        positives: ``"out"`` (the paper) or ``"in"`` (the authors' code).
        reduction: ``"sum"``, ``"mean"`` over anchors with a positive, or ``"none"``.
        normalize: Divide each latent by its L2 norm first.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> loss = torch.jit.script(mf.VtoVLoss(temperature=0.5))
        >>> loss(torch.eye(3), torch.tensor([0, 0, 1]))
        tensor(1.3863)
    """

    def forward(
        self,
        visual: Tensor,
        labels: Tensor,
        references: Optional[Tensor] = None,
        reference_labels: Optional[Tensor] = None,
    ) -> Tensor:
        """The loss of ``visual [N, D]`` with ``labels [N]``, and further instances ``[M, D]``."""
        return self._losses(
            visual, None, labels, True, False, False, self.positives, references, reference_labels
        ).vtov


class VtoSLoss(ContrastiveOptions):
    """Visual-to-semantic loss (MCFA, Eq. 5): :func:`mcfa_fast.functional.vtos_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        reduction: ``"sum"``, ``"mean"`` over instances, or ``"none"``.
        normalize: Divide each latent by its L2 norm first.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.VtoSLoss(temperature=1.0)(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        tensor(0.6265)
    """

    def forward(self, visual: Tensor, semantic: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``visual [N, D]`` against ``semantic [C, D]`` with ``labels [N]``."""
        return self._losses(visual, semantic, labels, False, True, False, "out").vtos


class StoVLoss(OptionsWithPositives):
    """Semantic-to-visual loss (MCFA, Eq. 6): :func:`mcfa_fast.functional.stov_loss` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        positives: ``"out"`` (the paper) or ``"in"`` (the authors' code).
        reduction: ``"sum"``, ``"mean"`` over the classes present, or ``"none"``.
        normalize: Divide each latent by its L2 norm first.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.StoVLoss(temperature=1.0)(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        tensor(0.6265)
    """

    def forward(self, visual: Tensor, semantic: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``semantic [C, D]`` against ``visual [N, D]`` with ``labels [N]``."""
        return self._losses(visual, semantic, labels, False, False, True, self.positives).stov


class ContrastiveLosses(OptionsWithPositives):
    """All three losses in one pass: :func:`mcfa_fast.functional.contrastive_losses` as a module.

    Args:
        temperature: τ > 0; an :class:`torch.nn.Parameter` is trained with the model.
        positives: ``"out"`` (the paper) or ``"in"`` (the authors' code), for VtoV and StoV.
        reduction: ``"sum"``, ``"mean"`` or ``"none"``, each loss over its own anchors.
        normalize: Divide each latent by its L2 norm first.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells; not for
            TorchScript.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> losses = mf.ContrastiveLosses(temperature=torch.nn.Parameter(torch.tensor(0.1)))
        >>> vtov, vtos, stov = losses(torch.randn(8, 4), torch.randn(2, 4), torch.arange(8) % 2)
        >>> (vtov + vtos + stov).backward()
        >>> losses.temperature.grad is not None
        True
    """

    def forward(
        self,
        visual: Tensor,
        semantic: Tensor,
        labels: Tensor,
        references: Optional[Tensor] = None,
        reference_labels: Optional[Tensor] = None,
    ) -> ContrastiveLossValues:
        """``(vtov, vtos, stov)`` of ``visual [N, D]``, ``semantic [C, D]`` and ``labels [N]``."""
        return self._losses(
            visual, semantic, labels, True, True, True, self.positives, references, reference_labels
        )
