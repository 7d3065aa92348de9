"""Many linear classifiers of the same rows at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mcfa_fast.systems.spectrum import Spectrum

__all__ = ["Linear", "fit_linear"]

Loss = Literal["logistic", "softmax", "squared_hinge"]


class Linear(NamedTuple):
    """Weights [F, M] and intercepts [M] of M linear functions."""

    weights: np.ndarray
    intercepts: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weights + self.intercepts


def fit_linear(
    spectrum: Spectrum,
    targets: np.ndarray,
    *,
    loss: Loss,
    penalty: float,
    intercept: bool = True,
    tolerance: float = 1e-4,
) -> Linear:
    """Minimise ``Σ_i loss(x_i·W + b, t_i) + penalty/2·|W|²`` over M linear functions together.

    The losses are the logistic ``log(1 + exp(-t·f))`` and the squared hinge ``max(0, 1 - t·f)²``,
    summed over functions, with t = ±1, and the softmax cross entropy, with one-hot t. This is what
    scikit-learn's ``LogisticRegression`` and ``LinearSVC`` minimise for ``C = 1 / penalty``, but
    for hundreds of functions in one matrix product, and with every direction of the features
    scaled by a bound of the curvature there; without that, centred features of a network take
    hundreds of iterations.

    Args:
        spectrum: of the rows [n, F].
        targets: [n, M].
        loss: which loss.
        penalty: weight of the squared norm, above 0; the intercepts are not penalised.
        intercept: whether there are intercepts; else they are 0.
        tolerance: largest entry of the gradient at the end, relative to √n, in scaled coordinates.

    Source:
        The curvature bounds: Böhning, "Multinomial logistic regression algorithm", 1992.

    Example:
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> signs = np.array([[-1.0], [-1.0], [1.0], [1.0]])
        >>> line = fit_linear(Spectrum.of(x), signs, loss="squared_hinge", penalty=1e-3)
        >>> np.sign(line(x)).ravel().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    function, curvature = _LOSSES[loss]
    rows = torch.from_numpy(spectrum.rows)
    goal = torch.from_numpy(targets).to(rows.dtype)
    shape = (rows.shape[1] + 1, goal.shape[1])
    scale = 1 / torch.sqrt(curvature * torch.from_numpy(spectrum.values) + penalty)[:, None]
    offset_scale = (curvature * len(rows)) ** -0.5 if intercept else 0.0

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).to(rows.dtype).view(shape)
        weights = scale * point[:-1]
        value, slope = function(rows @ weights + offset_scale * point[-1], goal)
        gradient = torch.empty_like(point)
        gradient[:-1] = scale * (rows.T @ slope + penalty * weights)
        gradient[-1] = offset_scale * slope.sum(dim=0)
        value = value.sum(dtype=torch.float64) + 0.5 * penalty * weights.double().square().sum()
        return value.item(), gradient.double().numpy().ravel()

    solution = minimize(
        objective,
        np.zeros(shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": tolerance * len(rows) ** 0.5, "ftol": 0.0, "maxiter": 10_000},
    ).x
    point = solution.reshape(shape).astype(spectrum.values.dtype)
    return Linear(spectrum.vectors @ (scale.numpy() * point[:-1]), offset_scale * point[-1])


def _logistic(margins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    margins = targets * margins
    return torch.nn.functional.softplus(-margins), -targets * torch.sigmoid(-margins)


def _softmax(margins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logarithms = margins.log_softmax(dim=1)
    return -targets * logarithms, logarithms.exp() - targets


def _squared_hinge(margins: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    lack = (1 - targets * margins).clamp(min=0)
    return lack.square(), -2 * targets * lack


# Values and derivatives, elementwise, with the largest second derivative that there can be.
_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], float]] = {
    "logistic": (_logistic, 0.25),
    "softmax": (_softmax, 0.5),
    "squared_hinge": (_squared_hinge, 2.0),
}
