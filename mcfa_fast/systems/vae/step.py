"""One training step of two aligned VAEs, in the way that suits the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mcfa_fast._extension import load
from mcfa_fast.systems.batches import StepInput
from mcfa_fast.systems.vae.model import AlignedVAEs, VAEOutput
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.training.ranks import Share
from mcfa_fast.training.update import Update

__all__ = ["CapturedStep", "Contrasts", "EagerStep", "NativeStep", "Step", "TermWeights"]


class TermWeights(NamedTuple):
    """What each term counts in the total; systems without contrasts leave theirs at 0."""

    reconstruction: float
    kl: float
    cross_reconstruction: float
    alignment: float
    vtov: float = 0.0
    vtos: float = 0.0
    stov: float = 0.0


class Contrasts(NamedTuple):
    """Options of the contrastive terms."""

    temperature: float = 1.0
    positives: str = "out"


Objective = Callable[[VAEOutput, TermWeights, "Share | None"], tuple[Tensor, ...]]
"""The losses of a batch, or of a rank's share of it, the weighted total first."""


class Step(Protocol):
    """Updates the model from one batch."""

    def __call__(self, batch: StepInput, weights: TermWeights, update: Update) -> Tensor:
        """The batch's losses before the update, the total first. Nothing waits for the device."""


class EagerStep:
    """PyTorch's autograd, on any device; the one step that can be shared by ranks.

    Args:
        model: The model in training mode.
        objective: Of a batch's output and the weights.
        optimizer: Of the model's parameters.
        generator: Source of the sampling noise, on the model's device.
    """

    def __init__(
        self,
        model: AlignedVAEs,
        objective: Objective,
        optimizer: FusedAdam,
        generator: torch.Generator,
    ) -> None:
        self._model = model
        self._objective = objective
        self._optimizer = optimizer
        self._generator = generator
        self._mixed = model.config.training.precision == "bf16"

    def __call__(
        self,
        batch: StepInput,
        weights: TermWeights,
        update: Update,
        share: Share | None = None,
    ) -> Tensor:
        losses = self.gradients(batch, weights, share)
        update.apply(self._optimizer)
        return losses

    def gradients(
        self, batch: StepInput, weights: TermWeights, share: Share | None = None
    ) -> Tensor:
        """Sets the parameters' gradients, those of a share where one is given; returns the
        losses."""
        device = batch.features.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._mixed):
            output = self._model(*batch, self._generator, share)
            losses = self._objective(output, weights, share)
        self._optimizer.zero_grad()
        losses[0].backward()
        return torch.stack(losses).detach()


class NativeStep:
    """The extension's own forward and backward pass, on the CPU in full precision.

    The values are those of :class:`EagerStep` with
    :class:`~mcfa_fast.systems.mcfa.objective.MCFALoss` up to rounding, without a graph of
    operations and with little memory allocated anew. With ``contrast="means"``, without
    reconstructions, in chunks or in lower precision it does not work.

    Args:
        model: The model, with float32 parameters on the CPU.
        contrasts: Options of the contrastive terms.
        optimizer: Of the model's parameters.
        generator: Source of the sampling noise.
        terms: How many losses to return.
    """

    def __init__(
        self,
        model: AlignedVAEs,
        contrasts: Contrasts,
        optimizer: FusedAdam,
        generator: torch.Generator,
        terms: int,
    ) -> None:
        self._optimizer = optimizer
        self._generator = generator
        self._terms = terms
        self._extension = load()
        self._step = self._extension.TrainingStep(
            list(model.parameters()),
            temperature=contrasts.temperature,
            positives=contrasts.positives,
            scale_power=model.scale_power,
            noise_per_row=model.noise_per_row,
            count_instances=model.config.class_weighting == "instances",
        )

    def __call__(self, batch: StepInput, weights: TermWeights, update: Update) -> Tensor:
        native = self._extension.LossWeights(**weights._asdict())
        losses = self._step.run(*batch, native, self._generator)
        update.apply(self._optimizer)
        return losses[: self._terms]


class CapturedStep:
    """:class:`EagerStep` recorded as a CUDA graph and replayed: one launch per step.

    A graph holds for one shape of batch and one set of weights. The first steps of each run
    eagerly, as PyTorch asks for before a capture; they are ordinary training steps. Recorded are
    the gradients and the update alike, so that nothing may happen between them.

    Args:
        eager: The step to record, on a CUDA device.
        optimizer, generator: Those of the eager step.
    """

    _EAGER_STEPS = 3

    def __init__(
        self, eager: EagerStep, optimizer: FusedAdam, generator: torch.Generator
    ) -> None:
        self._eager = eager
        self._optimizer = optimizer
        self._generator = generator
        self._key: Any = None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input: StepInput
        self._losses: Tensor

    def __call__(self, batch: StepInput, weights: TermWeights, update: Update) -> Tensor:
        key = (weights, *(tensor.shape for tensor in batch))
        if key != self._key:
            if self._key is not None and batch.features.shape[0] < self._key[1][0]:
                return self._eager(batch, weights, update)  # the last batch of an epoch
            self._key, self._steps, self._graph = key, 0, None
        self._steps += 1
        if self._graph is None and self._steps <= self._EAGER_STEPS:
            return self._on_side_stream(batch, weights, update)
        if self._graph is None:
            self._graph = self._capture(batch, weights, update)
        for static, tensor in zip(self._input, batch, strict=True):
            static.copy_(tensor)
        self._graph.replay()
        return self._losses.clone()

    def _on_side_stream(self, batch: StepInput, weights: TermWeights, update: Update) -> Tensor:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self._eager(batch, weights, update)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _capture(
        self, batch: StepInput, weights: TermWeights, update: Update
    ) -> torch.cuda.CUDAGraph:
        self._input = StepInput(*(tensor.clone() for tensor in batch))
        # Gradients have to come from the graph's own memory.
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            self._losses = self._eager(self._input, weights, update)
        return graph
