"""What baselines that are trained by gradient steps over mini-batches have in common."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from mcfa_fast.systems.baseline_old import Baseline, TrainingData
from mcfa_fast.systems.checks_old import check_number

__all__ = ["Compatibility", "Problem", "TrainedBaseline", "margin_violations"]

_NOT_OF_TRAINING = ("task", "calibration", "epochs")


class Compatibility(nn.Module):
    """What is trained: a loss over images of seen classes, and scores for any classes."""

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, a scalar, of prepared features [B, F] with labels [B] in 0..S-1."""
        raise NotImplementedError

    def scores(self, features: Tensor, semantics: Tensor) -> Tensor:
        """Scores [N, K] of prepared features [N, F] for descriptors [K, A]."""
        raise NotImplementedError


@dataclass
class _Run:
    """A training that can go on: everything that its further epochs depend on."""

    options: dict[str, Any]
    module: Compatibility
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    losses: list[float] = field(default_factory=list)


@dataclass
class Problem:
    """The :class:`~mcfa_fast.systems.baseline_old.TrainingData` on the device, and the latest run on it.

    Attributes:
        features: float32 [n, F].
        labels: int64 [n] in 0..S-1.
        semantics: float32 [S, A].
    """

    features: Tensor
    labels: Tensor
    semantics: Tensor
    run: _Run | None = None


class TrainedBaseline(Baseline):
    """A baseline trained by gradient steps over shuffled mini-batches.

    A subclass builds what is trained in :meth:`_module`. Where its paper takes one step per image,
    a step here takes the mean gradient of `batch_size` images. All random numbers come from `seed`
    (a CPU generator: initial weights and shuffles are the same on every device).

    Args:
        epochs: passes over the training images; stopping early is the regularisation.
        learning_rate: step size.
        batch_size: images per step; the last batch of an epoch may be smaller.
        seed: seed of initial weights and shuffles.
        device: where to train and to score.

    Attributes:
        loss_curve_: mean training loss of every epoch, measured on the fly.
        module_: the trained :class:`Compatibility`.
    """

    dtype = np.float32

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    device: torch.device | str

    def _prepare(self, data: TrainingData) -> Problem:
        return Problem(*(torch.from_numpy(array).to(self.device) for array in data))

    def _fit(self, problem: Problem) -> None:
        self._check()
        run = problem.run
        options = {
            name: value for name, value in self.get_params().items() if name not in _NOT_OF_TRAINING
        }
        # A path over numbers of epochs costs no more than the highest of them.
        if run is None or run.options != options or len(run.losses) > self.epochs:
            generator = torch.Generator().manual_seed(self.seed)
            module = self._module(problem, generator)
            run = problem.run = _Run(options, module, self._optimizer(module, problem), generator)
        while len(run.losses) < self.epochs:
            run.losses.append(self._train_epoch(run, problem))
        if not math.isfinite(run.losses[-1]):
            warnings.warn(
                f"the training diverged; learning_rate: expected less than {self.learning_rate}",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.module_ = run.module
        self.loss_curve_ = tuple(run.losses)

    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            device = next(self.module_.parameters()).device
            features, semantics = (torch.from_numpy(array).to(device) for array in (x, s))
            return self.module_.scores(features, semantics).double().cpu().numpy()

    @abstractmethod
    def _module(self, problem: Problem, generator: torch.Generator) -> Compatibility:
        """What is trained, at its initial weights, on the problem's device."""

    def _optimizer(self, module: Compatibility, problem: Problem) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=self.learning_rate)

    def _check(self) -> None:
        """Raises ValueError on a hyperparameter that cannot be trained with."""
        check_number("epochs", self.epochs, whole=True)
        check_number("learning_rate", self.learning_rate)
        check_number("batch_size", self.batch_size, whole=True)
        check_number("seed", self.seed, whole=True, zero=True)

    def _train_epoch(self, run: _Run, problem: Problem) -> float:
        rows = len(problem.features)
        order = torch.randperm(rows, generator=run.generator).to(problem.features.device)
        total = torch.zeros((), device=problem.features.device)
        for batch in order.split(self.batch_size):
            loss = run.module.loss(problem.features[batch], problem.labels[batch])
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            total += loss.detach() * len(batch)
        return total.item() / rows


def margin_violations(scores: Tensor, labels: Tensor, margins: Tensor | float = 1.0) -> Tensor:
    """How far every wrong class comes within a margin of the true one's score.

    ``max(0, Δ(y_n, y) + F(x, y) - F(x, y_n))``, and 0 for ``y = y_n``.

    Args:
        scores: F(x, y) [B, S].
        labels: y_n [B].
        margins: Δ(y_n, y) [B, S], or one for all wrong classes.

    Returns:
        Violations [B, S].

    Example:
        >>> margin_violations(torch.tensor([[2.0, 0.5, 1.5]]), torch.tensor([0]))
        tensor([[0.0000, 0.0000, 0.5000]])
    """
    true = labels[:, None]
    violations = torch.relu(scores - scores.gather(1, true) + margins)
    return violations.scatter(1, true, 0.0)
