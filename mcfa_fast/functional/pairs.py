"""Losses of pairs: two views, two towers, queues of negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mcfa_fast import distributed, ops
from mcfa_fast.functional.checks import check_temperature, check_tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from mcfa_fast.distributed import Ranks


def info_nce_loss(
    anchors: Tensor,
    keys: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float | Tensor,
    reduction: str = "mean",
    normalize: bool = True,
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""InfoNCE: the cross entropy of picking each anchor's own key.

    :math:`\ell_i = \log \sum_{k \in K(i)} e^{a_i \cdot k / \tau} - a_i \cdot k_i / \tau`, where
    :math:`K(i)` are all keys of the batch or, with negatives, the anchor's own key and those
    (MoCo). A queue of negatives is read where it lies, and costs no gradient unless it requires
    one.

    Args:
        anchors: Latents ``[N, D]``.
        keys: Latents ``[N, D]``; key i is the positive of anchor i.
        negatives: Latents ``[M, D]`` shared by all anchors, in place of the other keys.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        reduction: ``"mean"`` (the papers), ``"sum"`` or ``"none"``.
        normalize: Divide each latent by its L2 norm first; the gradient goes through it.
        group: Ranks whose rows are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim, or ``[N]`` for ``reduction="none"``.

    Raises:
        ValueError: A wrong shape, device, option or temperature; the message names the argument.
        TypeError: A wrong dtype.

    Source:
        van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018;
        He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> anchors, queue = torch.eye(3), -torch.eye(3)
        >>> mf.functional.info_nce_loss(anchors, anchors, negatives=queue, temperature=1.0)
        tensor(0.6265)
    """
    check_tensors(anchors=anchors, keys=keys)
    check_temperature(temperature)
    if distributed.several(group):
        return distributed.info_nce(
            anchors, keys, negatives, temperature, reduction, normalize, group
        )
    return ops.info_nce(anchors, keys, negatives, temperature, reduction, normalize)


def clip_loss(
    images: Tensor,
    texts: Tensor,
    *,
    temperature: float | Tensor,
    normalize: bool = True,
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""Contrastive loss of two towers: the mean of both directions' InfoNCE.

    Row i of the images belongs to row i of the texts. Every similarity is computed once for both
    directions, and none is kept.

    Args:
        images: Embeddings ``[N, D]``.
        texts: Embeddings ``[N, D]``.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        normalize: Divide each embedding by its L2 norm first; the gradient goes through it.
        group: Ranks whose rows are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim.

    Raises:
        ValueError: A wrong shape, device or temperature; the message names the argument.
        TypeError: A wrong dtype.

    Source:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
        2021, Figure 3.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.functional.clip_loss(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.3133)
    """
    check_tensors(images=images, texts=texts)
    check_temperature(temperature)
    if distributed.several(group):
        return distributed.clip(images, texts, temperature, normalize, group)
    return ops.clip(images, texts, temperature, normalize)


def nt_xent_loss(
    views_a: Tensor,
    views_b: Tensor,
    *,
    temperature: float | Tensor,
    reduction: str = "mean",
    group: Ranks | ProcessGroup | None = None,
) -> Tensor:
    r"""Normalised temperature-scaled cross entropy of two views of each instance (SimCLR).

    Each of the 2N views is an anchor, the instance's other view its positive, and all other views
    its candidates; similarities are cosines over :math:`\tau`.

    Args:
        views_a: Latents ``[N, D]``.
        views_b: Latents ``[N, D]`` of the other views.
        temperature: :math:`\tau > 0`, a float or a 0-dim tensor, which may require grad.
        reduction: ``"mean"`` over the views (the paper), ``"sum"``, or ``"none"``.
        group: Ranks whose rows are the batch, as :mod:`mcfa_fast.distributed` tells.

    Returns:
        The loss, 0-dim, or ``[2N]`` for ``reduction="none"``, those of ``views_a`` first.

    Raises:
        ValueError: A wrong shape, device, option or temperature; the message names the argument.
        TypeError: A wrong dtype.

    Source:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020,
        Equation 1.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.functional.nt_xent_loss(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.5514)
    """
    check_tensors(views_a=views_a, views_b=views_b)
    check_temperature(temperature)
    if distributed.several(group):
        return distributed.nt_xent(views_a, views_b, temperature, reduction, group)
    return ops.nt_xent(views_a, views_b, temperature, reduction)
