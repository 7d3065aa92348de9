"""The softmax classifier over latents: one linear layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mcfa_fast._extension import load

__all__ = ["SoftmaxClassifier"]


class SoftmaxClassifier(nn.Module):
    """Linear layer with log-softmax, trained on latents drawn from a trained model.

    Weights start Xavier-uniform with gain 0.5, biases at zero.

    Args:
        latent_features: dimensions D of a latent.
        classes: number of classes K.
        generator: source of the initial weights; None draws from PyTorch's global generator.

    Source:
        Liu et al., Section II-A; the training is that of the authors' code (Adam with betas
        (0.5, 0.999)).

    Example:
        >>> latents = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> classifier = SoftmaxClassifier(2, 2, generator=generator)
        >>> classifier.fit(lambda: (latents, labels), epochs=500, generator=generator)
        >>> classifier(latents).argmax(dim=1).tolist()
        [0, 1]
    """

    def __init__(
        self, latent_features: int, classes: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        # skip_init: the layer's own initialisation would draw from the global generator.
        self.linear = nn.utils.skip_init(nn.Linear, latent_features, classes)
        nn.init.xavier_uniform_(self.linear.weight, gain=0.5, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """Log-probabilities [N, K] of latents [N, D]."""
        return F.log_softmax(self.linear(latents), dim=1)

    def fit(
        self,
        draw: Callable[[], tuple[Tensor, Tensor]],
        *,
        epochs: int,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        drop_last: bool = False,
        generator: torch.Generator,
        monitor: Callable[[int, SoftmaxClassifier], float] | None = None,
    ) -> None:
        """Train by cross entropy with Adam.

        Args:
            draw: gives an epoch's latents [M, D] and column numbers [M] in 0..K-1; called once per
                epoch, always with the same M > 0.
            epochs: passes over M latents.
            batch_size: latents per step (M if that is less).
            learning_rate: Adam's step size.
            drop_last: every epoch shuffles anew and leaves out what does not fill a batch.
                Otherwise the shuffles follow one another without a gap: an epoch has
                ceil(M / batch_size) full batches, the last of which may reach into the next
                shuffle.
            generator: source of the shuffles.
            monitor: called as ``monitor(epoch, classifier)`` after each epoch, counted from 1. The
                weights of the (first) epoch with the highest value are kept; without a monitor
                those of the last epoch are.

        Raises:
            ValueError: when `draw` gives no latents or other numbers of latents and labels.
        """
        training = load().SoftmaxTraining(
            *self.parameters(), learning_rate=learning_rate, beta1=0.5, beta2=0.999
        )
        order = torch.empty(0, dtype=torch.int64)
        best_value, best_weights = float("-inf"), None
        for epoch in range(1, epochs + 1):
            latents, labels = draw()
            rows = len(latents)
            if rows == 0 or labels.shape != (rows,):
                raise ValueError(
                    "draw: expected latents [M, D] and labels [M] with M > 0, got "
                    f"{tuple(latents.shape)} and {tuple(labels.shape)}"
                )
            size = min(batch_size, rows)
            if drop_last:
                order, taken = torch.randperm(rows, generator=generator), rows // size * size
            else:
                taken = -(-rows // size) * size
                while len(order) < taken:
                    order = torch.cat([order, torch.randperm(rows, generator=generator)])
            epoch_rows, order = order[:taken], order[taken:]
            training.epoch(latents[epoch_rows], labels[epoch_rows], size)
            if monitor is not None:
                value = monitor(epoch, self)
                if value > best_value:
                    best_value, best_weights = value, copy.deepcopy(self.state_dict())
        if best_weights is not None:
            self.load_state_dict(best_weights)
