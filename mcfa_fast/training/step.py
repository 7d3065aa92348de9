"""One training step, in the way that suits the device: gradients of the objective, then Adam."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mcfa_fast._extension import load
from mcfa_fast.config import MCFAConfig
from mcfa_fast.models.mcfa import MCFA
from mcfa_fast.models.objective import LossWeights, MCFALoss
from mcfa_fast.training.optimizer import FusedAdam

__all__ = ["CapturedStep", "EagerStep", "NativeStep", "Step", "StepInput", "make_step"]


class StepInput(NamedTuple):
    """One batch on the device of the model."""

    features: Tensor
    """[N, F] scaled visual features."""
    semantics: Tensor
    """[C, A] descriptors of the batch's classes."""
    labels: Tensor
    """[N] int64 row of ``semantics`` of each instance."""


class Step(Protocol):
    """Updates the model from one batch."""

    def __call__(self, batch: StepInput, weights: LossWeights) -> Tensor:
        """The batch's losses [8] before the update, in the order of ``MCFALosses``.

        Nothing waits for the device.
        """


class EagerStep:
    """PyTorch's autograd, on any device.

    Args:
        model: The model in training mode.
        optimizer: Of the model's parameters.
        generator: Source of the sampling noise, on the model's device.
    """

    def __init__(self, model: MCFA, optimizer: FusedAdam, generator: torch.Generator) -> None:
        self._model = model
        self._objective = MCFALoss(model.config)
        self._optimizer = optimizer
        self._generator = generator
        self._mixed = model.config.precision == "bf16"

    def __call__(self, batch: StepInput, weights: LossWeights) -> Tensor:
        device = batch.features.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._mixed):
            losses = self._objective(self._model(*batch, self._generator), weights)
        self._optimizer.zero_grad()
        losses.total.backward()
        self._optimizer.step()
        return torch.stack(losses).detach()


class NativeStep:
    """The extension's own forward and backward pass, on the CPU in full precision.

    The values are those of :class:`EagerStep` up to rounding, without a graph of operations and
    with little memory allocated anew.

    Args:
        model: The model, with float32 parameters on the CPU.
        optimizer: Of the model's parameters.
        generator: Source of the sampling noise.
    """

    def __init__(self, model: MCFA, optimizer: FusedAdam, generator: torch.Generator) -> None:
        self._optimizer = optimizer
        self._generator = generator
        self._extension = load()
        self._step = self._extension.TrainingStep(
            list(model.parameters()),
            temperature=model.config.temperature,
            positives=model.config.positives,
            scale_power=model.scale_power,
            noise_per_row=model.noise_per_row,
            count_instances=model.config.class_weighting == "instances",
        )

    def __call__(self, batch: StepInput, weights: LossWeights) -> Tensor:
        native = self._extension.LossWeights(**weights._asdict())
        losses = self._step.run(*batch, native, self._generator)
        self._optimizer.step()
        return losses


class CapturedStep:
    """:class:`EagerStep` recorded as a CUDA graph and replayed: one launch per step.

    A graph holds for one shape of batch and one set of weights. The first steps of each run
    eagerly, as PyTorch asks for before a capture; they are ordinary training steps.

    Args:
        model, optimizer, generator: As for :class:`EagerStep`, on a CUDA device.
    """

    _EAGER_STEPS = 3

    def __init__(self, model: MCFA, optimizer: FusedAdam, generator: torch.Generator) -> None:
        self._eager = EagerStep(model, optimizer, generator)
        self._optimizer = optimizer
        self._generator = generator
        self._key: object = None
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._input: StepInput | None = None
        self._losses: Tensor | None = None

    def __call__(self, batch: StepInput, weights: LossWeights) -> Tensor:
        key = (weights, *(tensor.shape for tensor in batch))
        if key != self._key:
            if self._key is not None and batch.features.shape[0] < self._key[1][0]:
                return self._eager(batch, weights)  # the last batch of an epoch
            self._key, self._steps, self._graph = key, 0, None
        self._steps += 1
        if self._graph is None and self._steps <= self._EAGER_STEPS:
            return self._on_side_stream(batch, weights)
        if self._graph is None:
            self._capture(batch, weights)
        for static, tensor in zip(self._input, batch, strict=True):
            static.copy_(tensor)
        self._graph.replay()
        return self._losses.clone()

    def _on_side_stream(self, batch: StepInput, weights: LossWeights) -> Tensor:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self._eager(batch, weights)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _capture(self, batch: StepInput, weights: LossWeights) -> None:
        self._input = StepInput(*(tensor.clone() for tensor in batch))
        # Gradients have to come from the graph's own memory.
        self._optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._generator)
        with torch.cuda.graph(self._graph):
            self._losses = self._eager(self._input, weights)


def make_step(
    config: MCFAConfig, model: MCFA, optimizer: FusedAdam, generator: torch.Generator
) -> Step:
    """The fastest step for the model's device and the options.

    Example:
        >>> config = MCFAConfig(latent_features=4)
        >>> model = MCFA(8, 5, config)
        >>> optimizer = FusedAdam(model.parameters(), config.learning_rate)
        >>> type(make_step(config, model, optimizer, config.generator("noise"))).__name__
        'NativeStep'
    """
    device = next(model.parameters()).device.type
    if device == "cuda" and config.chunk_size is None:
        return CapturedStep(model, optimizer, generator)
    if device == "cpu" and _is_native(config):
        return NativeStep(model, optimizer, generator)
    return EagerStep(model, optimizer, generator)


def _is_native(config: MCFAConfig) -> bool:
    """Whether :class:`NativeStep` does all that the options ask for."""
    plain = MCFAConfig()
    options = ("chunk_size", "precision", "contrast", "visual_dropout", "semantic_dropout")
    return (
        all(getattr(config, option) == getattr(plain, option) for option in options)
        and None not in (config.visual_hidden, config.semantic_hidden)
        and config.reconstruction_weight + config.cross_reconstruction_weight > 0
    )
