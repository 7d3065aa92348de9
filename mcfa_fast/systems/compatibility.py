"""Systems that learn how well images and classes go together, by mini-batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.prepared import PreparedSystem
from mcfa_fast.training.placement import place
from mcfa_fast.training.ranks import ALONE, Share, World
from mcfa_fast.training.sampler import make_sampler
from mcfa_fast.training.update import Update

__all__ = [
    "Compatibility",
    "CompatibilitySystem",
    "CompatibilityTraining",
    "SeenImages",
    "margin_violations",
]


class Compatibility(nn.Module):
    """A compatibility F(x, y) of prepared features and classes, with its loss.

    TorchScript reads the annotations of a subclass, so that its file must not postpone them with
    ``from __future__ import annotations``.

    Args:
        tensors: all weights and constants by name.
    """

    weights: ClassVar[tuple[str, ...]]
    """Names of the tensors that are trained."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            if name in self.weights:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def embed(self, semantics: Tensor) -> Tensor:
        """What :meth:`forward` takes as the classes of prepared descriptors [K, A]."""
        return semantics

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Scores [N, K] of prepared features [N, F]; it can be scripted."""
        raise NotImplementedError

    def loss(self, features: Tensor, labels: Tensor, share: Share | None = None) -> Tensor:
        """Mean loss, a scalar, of a batch; with a share, this rank's part of it.

        Args:
            features: prepared features [B, F].
            labels: [B] in 0..S-1.
            share: which part of the batch these are; None is the whole batch.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class SeenImages:
    """The images that a compatibility is trained on, in main memory.

    Attributes:
        data: the images.
        scaler: fitted to them.
        labels: int64 [n] in 0..S-1.
        semantics: prepared descriptors [S, A] of the seen classes.
    """

    data: TrainingData
    scaler: nn.Module
    labels: Tensor
    semantics: Tensor

    @property
    def counts(self) -> Tensor:
        """How many images [S] a class has."""
        return self.labels.bincount()

    @cached_property
    def moments(self) -> tuple[Tensor, float]:
        """The mean [S, F] of each class's prepared features, and the mean square of all of them.

        Features are read once for both.
        """
        width = self.data.features.width
        sums, squares, start = torch.zeros(len(self.semantics), width), 0.0, 0
        for chunk in self.data.features.chunks():
            features = self.scaler(chunk)
            sums.index_add_(0, self.labels[start : start + len(chunk)], features)
            squares += features.double().square().sum().item()
            start += len(chunk)
        return sums / self.counts[:, None], squares / (len(self.labels) * width)


class CompatibilitySystem(PreparedSystem):
    """A compatibility over prepared features, trained by gradient steps over mini-batches.

    Where its paper takes one step per image, a step here takes the mean gradient of a batch. Fewer
    epochs are the regularisation. Initial weights and shuffles come from one CPU generator, so that
    they are the same on every device.

    A subclass gives the initial tensors (:meth:`initial`), what they are part of
    (:meth:`compatibility_of`) and, unless it is plain gradient descent, the :meth:`optimizer`.

    Attributes:
        compatibility: the trained module, on the system's device.
    """

    dtype = np.float32
    config: TrainableConfig
    compatibility: Compatibility

    @abstractmethod
    def initial(self, images: SeenImages, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial weights and constants by name, in main memory."""

    @abstractmethod
    def compatibility_of(self, tensors: Mapping[str, Tensor]) -> Compatibility:
        """The module that consists of these tensors."""

    def optimizer(self, images: SeenImages, learning_rate: float) -> Optimizer:
        """Of the compatibility's weights."""
        return torch.optim.SGD(self.compatibility.parameters(), lr=learning_rate)

    def trainable(
        self, data: TrainingData, *, resident: bool | None = None
    ) -> CompatibilityTraining:
        return CompatibilityTraining(self, data, resident)

    def class_module(self, semantics: np.ndarray) -> nn.Module:
        classes = self.compatibility.embed(torch.from_numpy(semantics).to(self.device))
        return _ForClasses(self.compatibility, classes)

    def learned_state(self) -> Mapping[str, Tensor]:
        return self.compatibility.state_dict()

    def load_learned(self, state: Mapping[str, Tensor]) -> None:
        self.scaler.to(self.device)
        self.compatibility = self.compatibility_of(state).to(self.device)


class _ForClasses(nn.Module):
    """Scores [N, K] of prepared features [N, F] for given classes."""

    def __init__(self, compatibility: Compatibility, classes: Tensor) -> None:
        super().__init__()
        self.compatibility = compatibility
        self.register_buffer("classes", classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.compatibility(features, self.classes)


@dataclass(frozen=True, eq=False)
class _Batch:
    features: Tensor
    labels: Tensor
    share: Share | None

    def __len__(self) -> int:
        return len(self.labels)


class CompatibilityTraining:
    """The training of a :class:`CompatibilitySystem`.

    Args:
        system: Its scaler is fitted, its compatibility made and trained.
        data: The images of the seen classes.
        resident: See :func:`~mcfa_fast.training.placement.place`.
    """

    losses: tuple[str, ...] = ("total",)

    def __init__(
        self, system: CompatibilitySystem, data: TrainingData, resident: bool | None
    ) -> None:
        device, options = system.device, system.config.training
        scaler = system.scaler.cpu()
        scaler.fit(data.features.chunks())
        labels = torch.from_numpy(np.searchsorted(data.seen_classes, data.labels))
        seen = data.semantics[torch.from_numpy(data.seen_classes)]
        semantics = torch.from_numpy(system.prepared_semantics(seen))
        images = SeenImages(data, scaler, labels, semantics)
        self._generator = torch.Generator().manual_seed(system.config.seed)
        tensors = system.initial(images, self._generator)
        self._finish = system.finish
        self._compatibility = system.compatibility_of(tensors).to(device)
        system.compatibility = self._compatibility
        system.finish()
        self._optimizer = system.optimizer(images, options.scaled_learning_rate(len(labels)))
        self._features = place(data.features, scaler, device, resident)
        scaler.to(device)
        self._sampler = make_sampler(options, labels, self._generator, device)
        self._mixed = options.precision == "bf16"

    def epoch(self, number: int, world: World = ALONE) -> Iterator[_Batch]:
        """The batches of an epoch."""
        self._compatibility.train()
        for batch, features in self._features.batches(self._sampler, world):
            labels = batch.classes[batch.labels]
            yield _Batch(features, labels[world.rows(len(labels))], world.share(labels))

    def step(self, batch: _Batch, update: Update) -> Tensor:
        """One step of the optimizer."""
        device = batch.features.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._mixed):
            loss = self._compatibility.loss(batch.features, batch.labels, batch.share)
        self._optimizer.zero_grad()
        loss.backward()
        update.apply(self._optimizer)
        return loss.detach()[None] * (batch.share.total if batch.share else len(batch))

    def eval(self) -> None:
        """Evaluation mode."""
        self._compatibility.eval()
        self._finish()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and generator."""
        return {
            "compatibility": self._compatibility.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._compatibility.load_state_dict(state["compatibility"])
        self._optimizer.load_state_dict(state["optimizer"])
        # Generator states are always CPU tensors.
        self._generator.set_state(state["generator"].cpu())
        self._finish()


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
