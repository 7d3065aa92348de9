"""Reconstruction, alignment and sampling of the aligned autoencoders: MCFA, Eqs. 1-3."""

from __future__ import annotations

from torch import Tensor

from mcfa_fast import ops
from mcfa_fast.functional.checks import check_tensors


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
    check_tensors(mean_a=mean_a, logvar_a=logvar_a, mean_b=mean_b, logvar_b=logvar_b)
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
    check_tensors(mean=mean, logvar=logvar)
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
    check_tensors(instances=instances, table=table)
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
    check_tensors(mean=mean, logvar=logvar, noise=noise)
    return ops.reparameterize(mean, logvar, noise, power)
