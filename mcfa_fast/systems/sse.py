"""SSE: descriptors and images embedded as histograms of seen classes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from mcfa_fast.systems.checks_old import check_number
from mcfa_fast.systems.trained_old import (
    Compatibility,
    Problem,
    TrainedBaseline,
    margin_violations,
)
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["SSE", "seen_class_histograms"]

_ELEMENTS_PER_CHUNK = 2**22


def seen_class_histograms(semantics: np.ndarray, seen: np.ndarray, smoothing: float) -> np.ndarray:
    """Every descriptor as a mixture of those of the seen classes.

    ``argmin_z smoothing/2·|z|² + 1/2·|s - Σ_y z_y s_y|²`` over the simplex (z >= 0, Σ z = 1).

    On the simplex the objective is ``|Bz|²/2`` with columns ``(s_y - s, sqrt(smoothing)·e_y)``.
    For any z there, ``min_t |B(tz)|² + (t - 1)² = |Bz|² / (1 + |Bz|²)``, which grows with
    ``|Bz|²``. So the solution is that of the non-negative least squares of ``|Bu|² + (Σu - 1)²``,
    divided by its sum: exact, without step sizes.

    Args:
        semantics: descriptors s [K, A].
        seen: descriptors s_y [S, A] of the seen classes.
        smoothing: weight of the squared norm, 0 or more; large values give equal proportions.

    Returns:
        Histograms float64 [K, S].

    Source:
        Zhang and Saligrama, "Zero-shot learning via semantic similarity embedding", 2015,
        the source domain embedding.

    Example:
        >>> seen = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> seen_class_histograms(np.array([[0.75, 0.25], [2.0, 0.0]]), seen, 0.0).round(6)
        array([[0.75, 0.25],
               [1.  , 0.  ]])
    """
    count = len(seen)
    penalty = smoothing**0.5 * np.eye(count)
    target = np.zeros(seen.shape[1] + count + 1)
    target[-1] = 1
    histograms = np.empty((len(semantics), count))
    for row, descriptor in zip(histograms, semantics, strict=True):
        system = np.vstack([(seen - descriptor).T, penalty, np.ones(count)])
        solution, _ = nnls(system.astype(np.float64), target, maxiter=100 * count)
        row[:] = solution / solution.sum()
    return histograms


class _Similarity(Compatibility):
    """``F(x, y) = Σ_s z_ys w·max(0, x - v_s)``, z_y being the histogram of class y."""

    def __init__(self, thresholds: Tensor, semantics: Tensor, smoothing: float, penalty: float):
        super().__init__()
        self.smoothing, self.penalty = smoothing, penalty
        self.weights = nn.Parameter(torch.zeros_like(thresholds[0]))
        self.thresholds = nn.Parameter(thresholds)
        self.register_buffer("seen", semantics)
        self.register_buffer("histograms", self._embed(semantics))
        self.register_buffer("margins", 1 - semantics @ semantics.T)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        scores = self._proportions(features) @ self.histograms.T
        members = nn.functional.one_hot(labels, len(self.seen)).to(scores.dtype)
        counts = members.sum(dim=0)
        present = counts.nonzero()[:, 0]
        means = (members.T @ scores)[present] / counts[present, None]
        classification = margin_violations(scores, labels, self.margins[labels])
        alignment = margin_violations(means, present, self.margins[present])
        hinges = classification.sum(dim=1).mean() + alignment.sum(dim=1).mean()
        return hinges + 0.5 * self.penalty * self.weights.square().sum()

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        size = max(1, _ELEMENTS_PER_CHUNK // self.thresholds.numel())
        proportions = torch.cat([self._proportions(rows) for rows in features.split(size)])
        return proportions @ self._embed(semantics).T

    def _proportions(self, features: Tensor) -> Tensor:
        """π(x) [N, S] of features [N, F]: how much of every seen class is in an image."""
        return torch.relu(features[:, None] - self.thresholds) @ self.weights

    def _embed(self, semantics: Tensor) -> Tensor:
        """Histograms z [K, S] of descriptors [K, A]."""
        seen = self.seen.cpu().numpy()
        histograms = seen_class_histograms(semantics.cpu().numpy(), seen, self.smoothing)
        return torch.from_numpy(histograms).to(self.seen)


class SSE(TrainedBaseline):
    """Semantic similarity embedding: ``F(x, y) = Σ_s z_ys π_s(x)``, with learned proportions π.

    A class is the histogram z_y of the seen classes that mix to its descriptor
    (:func:`seen_class_histograms`), an image has the proportions ``π_s(x) = w·max(0, x - v_s)``
    (the authors' ReLU form; their intersection form ``w·min(x, v_s)`` gives the same predictions
    with -w, as the two differ by a term that all classes share). Learned are w and the thresholds
    v_s, which start at the class means, in one max-margin problem:

        penalty/2·|w|² + mean_i Σ_y [Δ(y_i, y) + F(x_i, y) - F(x_i, y_i)]_+
                       + mean_y Σ_s [Δ(y, s) + mean_{i∈y} (F(x_i, s) - F(x_i, y))]_+

    Differences from the paper: w and v take steps together (Adam, on mini-batches, whose classes'
    means stand for those of all images) instead of in turns, thresholds may have either sign, as
    features are centred, and are regularised by stopping early alone. Δ is one minus the cosine of
    two descriptors.

    Args:
        smoothing: weight of the squared norm of a histogram, 0 or more.
        penalty: weight of ``|w|²/2``, 0 or more.
        learning_rate: step size of Adam for w; that for thresholds is multiplied by the root mean
            square of the features, as they are on that scale.
        epochs, batch_size, seed, device: see
            :class:`~mcfa_fast.systems.trained_old.TrainedBaseline`.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Source:
        Zhang and Saligrama, "Zero-shot learning via semantic similarity embedding", 2015: the
        source and target domain embeddings and the max-margin problem.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> sse = SSE(epochs=2).fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> sse.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "sse"

    def __init__(
        self,
        *,
        smoothing: float = 0.3,
        penalty: float = 1e-4,
        epochs: int = 5,
        learning_rate: float = 0.1,
        batch_size: int = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.smoothing = smoothing
        self.penalty = penalty
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.task = task
        self.calibration = calibration

    def _check(self) -> None:
        super()._check()
        check_number("smoothing", self.smoothing, zero=True)
        check_number("penalty", self.penalty, zero=True)

    def _module(self, problem: Problem, generator: torch.Generator) -> _Similarity:
        # Summed on the CPU, where the order of additions is always the same.
        features, labels = problem.features.cpu(), problem.labels.cpu()
        means = torch.zeros(len(problem.semantics), features.shape[1])
        means.index_add_(0, labels, features).div_(labels.bincount()[:, None])
        module = _Similarity(means, problem.semantics.cpu(), self.smoothing, self.penalty)
        return module.to(problem.features.device)

    def _optimizer(self, module: _Similarity, problem: Problem) -> torch.optim.Optimizer:
        scale = problem.features.square().mean().sqrt().item()
        groups = [
            {"params": [module.weights]},
            {"params": [module.thresholds], "lr": self.learning_rate * scale},
        ]
        return torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
