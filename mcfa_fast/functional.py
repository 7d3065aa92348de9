"""The losses and the sampling as functions, each the twin of one of :mod:`mcfa_fast.reference`.

Shapes: ``visual [N, D]`` latents of instances, ``semantic [C, D]`` latents of class descriptors,
``labels [N]`` classes in ``0..C-1``. All of them run in memory linear in N + C: no N×N or N×C
matrix is ever formed, neither forward nor backward. They accept float32, float64, float16 and
bfloat16 and return float32 (float64 for float64), accumulate in at least that precision, and give
bitwise the same result when called again with the same input on the same machine. They work under
``torch.compile(fullgraph=True)``, ``torch.export`` and autocast; :mod:`mcfa_fast.losses` has them
as modules, which ``torch.jit.script`` compiles too. Second derivatives raise NotImplementedError.

On a GPU they never wait for it, so that they can be captured into a CUDA graph. There, a label
outside ``0..C-1`` stops with a device-side assertion, and a ``temperature`` on the GPU that is not
positive and finite gives NaN. A learnable temperature belongs on the GPU; the gradient of one on
the CPU has to be fetched.

Source of the equations: Liu et al., "Multi-level Cross-modal Feature Alignment via Contrastive
Learning towards Zero-shot Classification of Remote Sensing Image Scenes" (MCFA), 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mcfa_fast import distributed, ops
from mcfa_fast.ops import ContrastiveLossValues

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from mcfa_fast.distributed import Ranks

__all__ = [
    "ContrastiveLossValues",
    "contrastive_losses",
    "kl_divergence",
    "l1_reconstruction",
    "reparameterize",
    "stov_loss",
    "vtos_loss",
    "vtov_loss",
    "wasserstein_alignment",
]


def vtov_loss(
    visual: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    positives: str = "out",
    reduction: str = "sum",
    normalize: bool = True,
    ignore_index: int = -100,
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
    )


def wasserstein_alignment(
    mean_a: Tensor,
    logvar_a: Tensor,
    mean_b: Tensor,
    logvar_b: Tensor,
    labels: Tensor | None = None,
    *,
    reduction: str = "sum",
) -> Tensor:
    r"""2-Wasserstein distance between diagonal Gaussians (MCFA, Eq. 3).

    :math:`d_i = \sqrt{\|\mu_{a,i} - \mu_{b,j}\|^2 + \|\sigma_{a,i} - \sigma_{b,j}\|^2}` with
    :math:`\sigma = \exp(\tfrac{1}{2} \log \sigma^2)`, where row i of a meets row :math:`j = y_i`
    of b, or row :math:`j = i` without labels. The gradient at distance 0 is defined as 0.

    Args:
        mean_a: Means ``[N, D]``, of the instances.
        logvar_a: Logarithms of the variances ``[N, D]``.
        mean_b: Means ``[C, D]``, of the classes; ``[N, D]`` without labels.
        logvar_b: Logarithms of the variances, of the shape of ``mean_b``.
        labels: Integer rows of b ``[N]`` in ``0..C-1``.
        reduction: ``"sum"`` (the paper), ``"mean"`` over the N instances, or ``"none"``.

    Returns:
        The loss, 0-dim, or the distances ``[N]`` for ``reduction="none"``.

    Raises:
        ValueError: A wrong shape, device or option, or a label outside ``0..C-1``.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mean, logvar = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
        >>> mf.functional.wasserstein_alignment(mean, logvar, torch.zeros(1, 2), logvar)
        tensor(5.)
    """
    return ops.wasserstein(mean_a, logvar_a, mean_b, logvar_b, labels, reduction)


def kl_divergence(mean: Tensor, logvar: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""KL divergence of diagonal Gaussians from the unit Gaussian (MCFA, Eq. 1).

    :math:`D_i = \tfrac{1}{2} \sum_d (\mu_{id}^2 + \sigma_{id}^2 - 1 - \log \sigma_{id}^2)`.

    Args:
        mean: Means ``[N, D]``.
        logvar: Logarithms of the variances ``[N, D]``.
        reduction: ``"sum"`` (the paper), ``"mean"`` over the N rows, or ``"none"``.

    Returns:
        The loss in nats, 0-dim, or ``[N]`` for ``reduction="none"``.

    Raises:
        ValueError: A wrong shape, device or option.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mf.functional.kl_divergence(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
        tensor(2.5000)
    """
    return ops.kl(mean, logvar, reduction)


def l1_reconstruction(
    instances: Tensor,
    table: Tensor,
    labels: Tensor | None = None,
    *,
    reduction: str = "sum",
) -> Tensor:
    r"""Sum of absolute differences of rows from rows gathered by label (MCFA, Eqs. 1-2).

    :math:`d_i = \sum_f |x_{if} - t_{jf}|`, where instance i meets row :math:`j = y_i` of the
    table, or row :math:`j = i` without labels. Either side may be the reconstruction: the one that
    does not require a gradient costs none, and the gradient of a row of the table is the sum over
    its instances. The gathered rows are never formed. As in PyTorch, the gradient of an absolute
    value at 0 is 0.

    Args:
        instances: Rows ``[N, F]``.
        table: Rows of the classes ``[C, F]``; ``[N, F]`` without labels.
        labels: Integer rows of the table ``[N]`` in ``0..C-1``.
        reduction: ``"sum"`` (the paper), ``"mean"`` over the N rows, or ``"none"``.

    Returns:
        The loss, 0-dim, or the distances ``[N]`` for ``reduction="none"``, whose dot product with
        weights weights the rows.

    Raises:
        ValueError: A wrong shape, device or option, or a label outside ``0..C-1``.
        TypeError: A wrong dtype.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> decoded = torch.tensor([[1.0, 1.0], [4.0, 4.0]])
        >>> labels = torch.tensor([0, 1, 1])
        >>> mf.functional.l1_reconstruction(features, decoded, labels, reduction="none")
        tensor([1., 1., 3.])
    """
    return ops.l1(instances, table, labels, reduction)


def reparameterize(mean: Tensor, logvar: Tensor, noise: Tensor, *, power: float = 0.5) -> Tensor:
    r"""Samples of diagonal Gaussians from given noise, the reparameterization trick.

    :math:`z = \mu + e^{p \log \sigma^2} \varepsilon`, so that power :math:`p = \tfrac{1}{2}` scales
    the noise by the standard deviation (the paper) and :math:`p = 1` by the variance (what the
    authors' code does). The noise is drawn by the caller, from whatever generator; the means get
    the gradient of the samples as it is, the noise none.

    Args:
        mean: Means ``[N, D]``.
        logvar: Logarithms of the variances ``[N, D]``.
        noise: ε ``[N, D]``, or ``[N, 1]`` for one draw that a row shares.
        power: p > 0.

    Returns:
        The samples ``[N, D]``, in the dtype of ``mean``.

    Raises:
        ValueError: A wrong shape, device or power, or noise that requires a gradient.
        TypeError: A wrong dtype.

    Source:
        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, Section 2.4.

    Example:
        >>> import torch, mcfa_fast as mf
        >>> mean, logvar = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
        >>> mf.functional.reparameterize(mean, logvar, torch.tensor([[0.5, -1.0]]))
        tensor([[1.5000, 1.0000]])
    """
    return ops.reparameterize(mean, logvar, noise, power)


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
) -> ContrastiveLossValues:
    """Those of VtoV, VtoS and StoV that are wanted, of this process's batch or a group's."""
    rest = (positives, reduction, normalize, ignore_index)
    if group is None:
        return ops.contrastive(visual, semantic, labels, temperature, *wanted, *rest)
    return distributed.contrastive(visual, semantic, labels, temperature, *wanted, *rest, group)
