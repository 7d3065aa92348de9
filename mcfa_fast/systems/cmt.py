"""CMT: a two-layer network that regresses descriptors from features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mcfa_fast.systems.checks_old import check_number
from mcfa_fast.systems.trained_old import Compatibility, Problem, TrainedBaseline
from mcfa_fast.systems.mcfa.config import Task

__all__ = ["CMT"]


class _Network(Compatibility):
    """``s(x) = W_1 tanh(W_2 x + b_2) + b_1``, scored by the squared distance to descriptors."""

    def __init__(
        self, features: int, hidden: int, semantics: Tensor, mean: Tensor, generator
    ) -> None:
        super().__init__()
        # skip_init: the layers' own initialisation would draw from the global generator.
        self.hidden = nn.utils.skip_init(nn.Linear, features, hidden)
        self.output = nn.utils.skip_init(nn.Linear, hidden, semantics.shape[1])
        for layer in (self.hidden, self.output):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(self.hidden.bias)
        # What the network gives for any image before it has learned to tell them apart.
        self.output.bias = nn.Parameter(mean.clone())
        self.register_buffer("seen", semantics)

    def forward(self, features: Tensor) -> Tensor:
        """Regressed descriptors [N, A] of features [N, F]."""
        return self.output(torch.tanh(self.hidden(features)))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return (self(features) - self.seen[labels]).square().sum(dim=1).mean()

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        regressed = self(features)
        squares = regressed.square().sum(dim=1, keepdim=True) + semantics.square().sum(dim=1)
        return 2 * regressed @ semantics.T - squares


class CMT(TrainedBaseline):
    """Cross-modal transfer: the descriptor that is nearest to one regressed from the features.

    ``min Σ_i |s_{y_i} - W_1 tanh(W_2 x_i)|²``; scores are negative squared distances. This is the
    embedding alone: the authors' detection of novelties, which chooses between seen and unseen
    classes before either is classified, is left out. Layers have biases, and the training is by
    Adam instead of L-BFGS.

    Args:
        hidden_units: width of the hidden layer.
        epochs, learning_rate, batch_size, seed, device: see
            :class:`~mcfa_fast.systems.trained_old.TrainedBaseline`.
        task, calibration: see :class:`~mcfa_fast.systems.baseline_old.Baseline`.

    Source:
        Socher et al., "Zero-shot learning through cross-modal transfer", 2013, Eq. 1.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> cmt = CMT(hidden_units=20, epochs=2).fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> cmt.decision_function(digits.features[:5]).shape
        (5, 3)
    """

    method = "cmt"

    def __init__(
        self,
        *,
        hidden_units: int = 100,
        epochs: int = 5,
        learning_rate: float = 3e-3,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        task: Task = "zsl",
        calibration: float | None = None,
    ) -> None:
        self.hidden_units = hidden_units
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.task = task
        self.calibration = calibration

    def _check(self) -> None:
        super()._check()
        check_number("hidden_units", self.hidden_units, whole=True)

    def _module(self, problem: Problem, generator: torch.Generator) -> _Network:
        features, semantics = problem.features.shape[1], problem.semantics
        mean = semantics[problem.labels].mean(dim=0)
        network = _Network(features, self.hidden_units, semantics.cpu(), mean.cpu(), generator)
        return network.to(semantics.device)

    def _optimizer(self, module: _Network, problem: Problem) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=self.learning_rate, fused=True)
