"""The contrastive losses of MCFA, Eqs. 4-6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mcfa_fast import distributed, ops
from mcfa_fast.functional.checks import check_temperature, check_tensors
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from mcfa_fast.distributed import Ranks


def vtov_loss(
    visual: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""Visual-to-visual supervised contrastive loss (MCFA, Eq. 4).

    With :math:`s_{ij} = v_i \cdot v_j / \tau` and :math:`P(i)` the other instances of i's class,

    .. math::
        \ell_i = \log \sum_{a \ne i} e^{s_{ia}} - \frac{1}{|P(i)|} \sum_{p \in P(i)} s_{ip}
        \quad\text{("out")},\qquad
        \ell_i = \log \sum_{a \ne i} e^{s_{ia}} - \log \frac{1}{|P(i)|} \sum_{p \in P(i)} e^{s_{ip}}
        \quad\text{("in")}.

    An instance that is alone in its class has no positive: it contributes no loss of its own and is
    left out of a mean, but remains a negative of the others.

    Args:
        visual: Latents ``[N, D]``.
        labels: Integer classes ``[N]``; any integers, since only their equality matters.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        positives: ``"out"`` (the paper) averages the positives outside the logarithm, ``"in"`` (the
            authors' code) inside.
        reduction: ``"sum"`` (the paper), ``"mean"`` over anchors with a positive, or ``"none"``.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        ignore_index: Instances with this label are neither anchors nor negatives.
        references: Latents ``[M, D]`` of further instances, such as a memory bank: candidates and
            positives of the batch, but no anchors. Without a gradient they cost none.
        reference_labels: Their classes ``[M]``.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim, or ``[N]`` for ``reduction="none"`` (0 for anchors that do not count). A
        batch without any valid anchor gives exactly 0 with zero gradients.

    Raises:
        ValueError: A wrong shape, device, option or temperature; the message names the argument.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> visual = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> mf.functional.vtov_loss(visual, torch.tensor([0, 0, 1]), temperature=1.0)
        tensor(0.6265)
    """
    return _contrastive(
        visual,
        None,
        labels,
        temperature,
        (True, False, False),
        positives,
        reduction,
        normalize,
        ignore_index,
        group,
        references,
        reference_labels,
    ).vtov


def vtos_loss(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""Visual-to-semantic contrastive loss (MCFA, Eq. 5).

    The cross entropy of the similarities of each instance to every class descriptor:
    :math:`\ell_i = \log \sum_k e^{v_i \cdot s_k / \tau} - v_i \cdot s_{y_i} / \tau`.

    Args:
        visual: Latents of instances ``[N, D]``.
        semantic: Latents of class descriptors ``[C, D]``; every row is a candidate.
        labels: Integer classes ``[N]`` in ``0..C-1``.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        reduction: ``"sum"`` (the paper), ``"mean"`` over the instances kept, or ``"none"``.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim, or ``[N]`` for ``reduction="none"``.

    Raises:
        ValueError: A wrong shape, device, option or temperature, or a label outside ``0..C-1``.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> visual, semantic = torch.eye(2), torch.eye(2)
        >>> mf.functional.vtos_loss(visual, semantic, torch.tensor([0, 1]), temperature=1.0)
        tensor(0.6265)
    """
    return _contrastive(
        visual,
        semantic,
        labels,
        temperature,
        (False, True, False),
        "out",
        reduction,
        normalize,
        ignore_index,
        group,
    ).vtos


def stov_loss(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""Semantic-to-visual contrastive loss (MCFA, Eq. 6).

    Each class present in the batch is an anchor, its instances :math:`P(c)` the positives:
    :math:`\ell_c = \log \sum_i e^{s_{ci}} - \frac{1}{n_c} \sum_{p \in P(c)} s_{cp}` with
    :math:`s_{ci} = s_c \cdot v_i / \tau` for ``"out"``, with the log-mean-exp of the positives
    instead of their mean for ``"in"``.

    Args:
        visual: Latents of instances ``[N, D]``.
        semantic: Latents of class descriptors ``[C, D]``.
        labels: Integer classes ``[N]`` in ``0..C-1``.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        positives: ``"out"`` (the paper) or ``"in"`` (the authors' code), as in :func:`vtov_loss`.
        reduction: ``"sum"`` (the paper), ``"mean"`` over the classes present, or ``"none"``.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        ignore_index: Instances with this label do not count.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim, or ``[C]`` for ``reduction="none"`` (0 for classes without an instance).

    Raises:
        ValueError: A wrong shape, device, option or temperature, or a label outside ``0..C-1``.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> visual, semantic = torch.eye(2), torch.eye(2)
        >>> mf.functional.stov_loss(visual, semantic, torch.tensor([0, 1]), temperature=1.0)
        tensor(0.6265)
    """
    return _contrastive(
        visual,
        semantic,
        labels,
        temperature,
        (False, False, True),
        positives,
        reduction,
        normalize,
        ignore_index,
        group,
    ).stov


def contrastive_losses(
    visual: Tensor,
    semantic: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    group: Ranks | ProcessGroup | None = None,
) -> ContrastiveLossValues:
    """:func:`vtov_loss`, :func:`vtos_loss` and :func:`stov_loss` of one batch in one fused pass.

    Latents are normalised and ordered by label once, and VtoS and StoV share each N×C similarity.

    Args:
        visual: Latents of instances ``[N, D]``.
        semantic: Latents of class descriptors ``[C, D]``.
        labels: Integer classes ``[N]`` in ``0..C-1``.
        temperature: τ > 0, a float or a 0-dim tensor, which may require grad.
        positives: ``"out"`` or ``"in"``, for VtoV and StoV.
        reduction: ``"sum"``, ``"mean"`` or ``"none"``, each loss over its own anchors.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        ignore_index: Instances with this label do not count.
        references: Latents ``[M, D]`` of further instances for VtoV; see :func:`vtov_loss`. VtoS
            has none but classes to meet, and StoV's instances remain those of the batch.
        reference_labels: Their classes ``[M]``.
        group: Ranks whose instances are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        A named tuple ``(vtov, vtos, stov)``.

    Raises:
        ValueError: A wrong shape, device, option or temperature, or a label outside ``0..C-1``.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> visual, semantic = torch.randn(32, 16, requires_grad=True), torch.randn(4, 16)
        >>> labels = torch.arange(32) % 4
        >>> losses = mf.functional.contrastive_losses(visual, semantic, labels, temperature=0.1)
        >>> (losses.vtov + losses.vtos + losses.stov).backward()
        >>> visual.grad.shape
        torch.Size([32, 16])
    """
    return _contrastive(
        visual,
        semantic,
        labels,
        temperature,
        (True, True, True),
        positives,
        reduction,
        normalize,
        ignore_index,
        group,
        references,
        reference_labels,
    )


def _contrastive(
    visual: Tensor,
    semantic: Tensor | None,
    labels: Tensor,
    temperature: float | Tensor,
    wanted: tuple[bool, bool, bool],
    positives: str,
    reduction: str,
    normalize: bool,
    ignore_index: int,
    group: Ranks | ProcessGroup | None,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> ContrastiveLossValues:
    """Those of VtoV, VtoS and StoV that are wanted, of this process's batch or a group's."""
    check_tensors(visual=visual, labels=labels)
    if wanted[1] or wanted[2]:
        check_tensors(semantic=semantic)
    check_temperature(temperature)
    arguments = (visual, semantic, labels, references, reference_labels, temperature, *wanted)
    options = (positives, reduction, normalize, ignore_index)
    if distributed.several(group):
        return distributed.contrastive(*arguments, *options, group)
    return ops.contrastive_with_references(*arguments, *options)
