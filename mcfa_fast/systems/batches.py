"""Training by batches of images and the descriptors of their classes, as most systems do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System, TrainableConfig
from mcfa_fast.systems.scaling import Scaler
from mcfa_fast.training.placement import place
from mcfa_fast.training.ranks import ALONE, Share, World
from mcfa_fast.training.sampler import make_sampler

__all__ = ["BatchTraining", "StepInput", "TrainingBatch"]


class StepInput(NamedTuple):
    """One batch on the device of the model."""

    features: Tensor
    """[N, F] scaled visual features."""
    semantics: Tensor
    """[C, A] scaled descriptors of the batch's classes."""
    labels: Tensor
    """[N] int64 row of ``semantics`` of each instance."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What a step is given; its length is its number of rows."""

    inputs: StepInput
    epoch: int
    share: Share | None = None
    """Which part of a batch it is that several ranks share; None is the whole batch."""

    def __len__(self) -> int:
        return len(self.inputs.labels)


class BatchTraining:
    """The part of a :class:`~mcfa_fast.training.trainable.Trainable` that does not depend on its
    losses: batches, and the state of a run.

    A subclass has ``losses`` and a ``step``. Both scalers are fitted here: to all rows of the
    features, which are checked meanwhile, and to the descriptors of the seen classes.

    Args:
        system: Its options and its device count.
        data: The images of the seen classes.
        module: All weights, scalers included, on the CPU; it is moved to the device.
        scaler, semantic_scaler: The module's scalers of features and of descriptors.
        resident: See :func:`~mcfa_fast.training.placement.place`.

    Attributes:
        optimizers: What a subclass steps; their states are kept with the run's.
        learning_rate: The configuration's, scaled to the batch.
        noise: The random generator of a step, on the device.
    """

    losses: tuple[str, ...] = ("total",)

    def __init__(
        self,
        system: System,
        data: TrainingData,
        module: nn.Module,
        *,
        scaler: Scaler,
        semantic_scaler: Scaler,
        resident: bool | None = None,
    ) -> None:
        config, device = system.config, system.device
        assert isinstance(config, TrainableConfig), "a system that is trained by batches"
        self._finish = system.finish
        self.module = module
        self.optimizers: Sequence[Optimizer] = ()
        scaler.fit(data.features.chunks())
        semantic_scaler.fit(data.semantics[torch.from_numpy(data.seen_classes)])
        self._features = place(data.features, scaler, device, resident)
        self._semantics = semantic_scaler(data.semantics).to(device)
        module.to(device)
        self._sampler_generator = config.generator("sampler")
        self.noise = config.generator("noise", device)
        self.learning_rate = config.training.scaled_learning_rate(len(data.labels))
        labels = torch.from_numpy(data.labels)
        self._sampler = make_sampler(config.training, labels, self._sampler_generator, device)

    def epoch(self, number: int, world: World = ALONE) -> Iterator[TrainingBatch]:
        """The batches of an epoch."""
        self.module.train()
        for batch, features in self._features.batches(self._sampler, world):
            semantics = self._semantics.index_select(0, batch.classes)
            own = batch.labels[world.rows(len(batch.labels))]
            inputs = StepInput(features, semantics, own)
            yield TrainingBatch(inputs, number, world.share(batch.labels))

    def eval(self) -> None:
        """Evaluation mode."""
        self.module.eval()
        self._finish()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers and generators."""
        return {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "sampler_generator": self._sampler_generator.get_state(),
            "noise_generator": self.noise.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.module.load_state_dict(state["module"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        # Generator states are always CPU tensors, wherever the generator draws.
        self._sampler_generator.set_state(state["sampler_generator"].cpu())
        self.noise.set_state(state["noise_generator"].cpu())
        self._finish()
