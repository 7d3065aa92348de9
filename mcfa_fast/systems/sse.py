"""SSE: descriptors and images embedded as histograms of seen classes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.optim import Optimizer

from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.compatibility import (
    Compatibility,
    CompatibilitySystem,
    SeenImages,
    margin_violations,
)
from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.ranks import Share, mean_over_batch

__all__ = ["SSE", "SSEConfig", "seen_class_histograms"]


class SSEConfig(TrainableConfig):
    """Options of SSE."""

    smoothing: float = Field(0.3, ge=0, description="Weight of the squared norm of a histogram.")
    penalty: float = Field(1e-4, ge=0, description="Weight of |w|²/2.")
    training: TrainingConfig = Field(
        TrainingConfig(batch_size=64, epochs=5, learning_rate=0.1),
        description="Batches, epochs, step size, precision. The step size is that of w; that of "
        "thresholds is multiplied by the root mean square of the prepared features, as they are "
        "on that scale.",
    )


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
    """``F(x, y) = Σ_s z_ys w·max(0, x - v_s)``, z_y being the histogram of class y.

    Args:
        tensors: ``w`` [F], ``thresholds`` v [S, F], ``seen``, the seen descriptors [S, A], and
            their ``histograms`` [S, S].
        config: options.
    """

    weights = ("w", "thresholds")
    if TYPE_CHECKING:  # TorchScript knows no annotations that are text
        w: Tensor
        thresholds: Tensor
        seen: Tensor
        histograms: Tensor
        margins: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], config: SSEConfig) -> None:
        super().__init__(tensors)
        self.smoothing, self.penalty = config.smoothing, config.penalty
        self.register_buffer("margins", 1 - self.seen @ self.seen.T, persistent=False)

    def embed(self, semantics: Tensor) -> Tensor:
        seen = self.seen.cpu().numpy()
        histograms = seen_class_histograms(semantics.cpu().numpy(), seen, self.smoothing)
        return torch.from_numpy(histograms).to(self.seen)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        # One seen class after the other: [N, S, F] at once would be as much memory as all images.
        proportions = [torch.relu(features - each) @ self.w for each in self.thresholds.unbind()]
        return torch.stack(proportions, dim=1) @ classes.T

    def loss(self, features: Tensor, labels: Tensor, share: Optional[Share] = None) -> Tensor:
        proportions = torch.relu(features[:, None] - self.thresholds) @ self.w
        scores = (proportions @ self.histograms.T).float()
        members = nn.functional.one_hot(labels, len(self.seen)).to(scores.dtype)
        counts, sums = members.sum(dim=0), members.T @ scores
        if share is not None:
            counts, sums = share.labels.bincount(minlength=len(counts)), share.sum(sums)
        present = counts.nonzero()[:, 0]
        means = sums[present] / counts[present, None]
        violations = margin_violations(scores, labels, self.margins[labels]).sum(dim=1)
        classification = mean_over_batch(violations, share)
        alignment = margin_violations(means, present, self.margins[present]).sum(dim=1).mean()
        penalty = 0.5 * self.penalty * self.w.square().sum()
        if share is None:
            return classification + alignment + penalty
        # The means are those of the whole batch on every rank; the penalty knows no rows.
        return classification + share.once(alignment) + (penalty if share.world.first else 0)


class SSE(CompatibilitySystem):
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

    Source:
        Zhang and Saligrama, "Zero-shot learning via semantic similarity embedding", 2015: the
        source and target domain embeddings and the max-margin problem.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("sse", options={"epochs": 2})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    name = "sse"
    Config = SSEConfig
    config: SSEConfig

    def initial(self, images: SeenImages, generator: torch.Generator) -> dict[str, Tensor]:
        seen = images.semantics
        means, _ = images.moments
        histograms = seen_class_histograms(seen.numpy(), seen.numpy(), self.config.smoothing)
        return {
            "w": torch.zeros(self.visual_features),
            "thresholds": means,
            "seen": seen,
            "histograms": torch.from_numpy(histograms).to(seen.dtype),
        }

    def compatibility_of(self, tensors: Mapping[str, Tensor]) -> Compatibility:
        return _Similarity(tensors, self.config)

    def optimizer(self, images: SeenImages, learning_rate: float) -> Optimizer:
        _, mean_square = images.moments
        module, scale = self.compatibility, mean_square**0.5
        groups = [
            {"params": [module.w]},
            {"params": [module.thresholds], "lr": learning_rate * scale},
        ]
        return torch.optim.Adam(groups, lr=learning_rate, fused=True)
