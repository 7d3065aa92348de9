"""A system of two aligned VAEs: what remains is its objective."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import ClassVar

import torch
from torch import Tensor, nn

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System
from mcfa_fast.systems.batches import BatchTraining, TrainingBatch
from mcfa_fast.systems.folded_encoder import FoldedEncoder
from mcfa_fast.systems.vae.config import VAEConfig
from mcfa_fast.systems.vae.gaussians import GaussianBank
from mcfa_fast.systems.vae.model import AlignedVAEs
from mcfa_fast.systems.vae.step import (
    CapturedStep,
    Contrasts,
    EagerStep,
    NativeStep,
    Objective,
    Step,
    TermWeights,
)
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.training.update import Update

__all__ = ["VAESystem"]


class VAESystem(System):
    """Embeds images and classes as latent means, and samples latents of either.

    A subclass has its losses' names, an :meth:`objective` and :meth:`weights`; where the native
    step does not know its objective, also :meth:`contrasts`.

    Attributes:
        model: The two VAEs.
    """

    losses: ClassVar[tuple[str, ...]]
    """Names of what the objective returns, "total" first."""
    config: VAEConfig

    def __init__(
        self,
        config: VAEConfig,
        visual_features: int,
        semantic_features: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, visual_features, semantic_features, device=device)
        self.model = AlignedVAEs(visual_features, semantic_features, config)
        self.finish()

    @classmethod
    def of_model(cls, model: AlignedVAEs) -> VAESystem:
        """The system of a model that is trained already."""
        parameter = next(model.parameters())
        system = cls(
            model.config, model.visual_features, model.semantic_features, device=parameter.device
        )
        system.model = model.eval()
        system.finish()
        return system

    @abstractmethod
    def objective(self) -> Objective:
        """The losses of a batch."""

    @abstractmethod
    def weights(self, epoch: int) -> TermWeights:
        """What each term counts in an epoch, counted from 1."""

    def contrasts(self) -> Contrasts | None:
        """Options of the contrastive terms for the native step; None if it does not apply."""
        return Contrasts()

    def trainable(self, data: TrainingData, *, resident: bool | None = None) -> VAETraining:
        return VAETraining(self, data, resident)

    def finish(self) -> None:
        encoder = self.model.visual.encoder
        self._encoder = FoldedEncoder(self.model.scaler, encoder.mean, encoder.hidden)

    @property
    def embedding_features(self) -> int:
        return self.config.latent_features

    def embed(self, features: Tensor) -> Tensor:
        return self._encoder(features)

    @torch.no_grad()
    def prototypes(self, semantics: Tensor) -> Tensor:
        return self.model.encode_semantic(self._on_device(semantics))[0].cpu()

    @torch.no_grad()
    def scale_semantics(self, semantics: Tensor) -> Tensor:
        return self.model.semantic_scaler(self._on_device(semantics)).cpu()

    @torch.no_grad()
    def image_bank(self, features: FeatureRows) -> GaussianBank:
        encoded = [
            self.model.encode_visual(self._on_device(chunk)) for chunk in features.chunks()
        ]
        return self._bank(*(torch.cat(parts) for parts in zip(*encoded, strict=True)))

    @torch.no_grad()
    def class_bank(self, semantics: Tensor) -> GaussianBank:
        return self._bank(*self.model.encode_semantic(self._on_device(semantics)))

    def load_bank(self, state: Mapping[str, Tensor]) -> GaussianBank:
        return GaussianBank(self.model, **state)

    def encoder(self) -> nn.Module:
        visual = self.model.visual.encoder
        layers = nn.Sequential(self.model.scaler, visual.hidden, nn.ReLU(), visual.mean)
        return _frozen_copy(layers)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(state)
        self.model.to(self.device).eval()
        self.finish()

    def _bank(self, mean: Tensor, logvar: Tensor) -> GaussianBank:
        return GaussianBank(self.model, mean.cpu(), logvar.cpu())

    def _on_device(self, rows: Tensor) -> Tensor:
        like = self.model.visual.encoder.mean.weight
        return rows.to(like.device, like.dtype)


class VAETraining(BatchTraining):
    """The training of a :class:`VAESystem`, by Adam with amsgrad.

    Args:
        system: Its model is trained.
        data: The images of the seen classes.
        resident: See :func:`~mcfa_fast.training.placement.place`.
    """

    def __init__(self, system: VAESystem, data: TrainingData, resident: bool | None) -> None:
        model = system.model
        super().__init__(
            system,
            data,
            model,
            scaler=model.scaler,
            semantic_scaler=model.semantic_scaler,
            resident=resident,
        )
        self.losses = system.losses
        self._system = system
        self._optimizer = FusedAdam(model.parameters(), self.learning_rate)
        self.optimizers = (self._optimizer,)
        self._eager = EagerStep(model, system.objective(), self._optimizer, self.noise)
        self._step = self._make_step()

    def step(self, batch: TrainingBatch, update: Update) -> Tensor:
        weights = self._system.weights(batch.epoch)
        if batch.share is not None:
            return self._eager(batch.inputs, weights, update, batch.share)
        return self._step(batch.inputs, weights, update)

    def _make_step(self) -> Step:
        """The fastest step for the device and the options, of one process."""
        system, device = self._system, self._system.device.type
        contrasts = system.contrasts() if device == "cpu" else None
        if contrasts is not None and _is_plain(system.config):
            return NativeStep(
                system.model, contrasts, self._optimizer, self.noise, len(self.losses)
            )
        if device == "cuda" and system.config.training.chunk_size is None:
            return CapturedStep(self._eager, self._optimizer, self.noise)
        return self._eager


def _is_plain(config: VAEConfig) -> bool:
    """Whether the native step does all that the options ask for."""
    return (
        config.training.chunk_size is None
        and config.training.precision == "float32"
        and config.reconstruction_weight + config.cross_reconstruction_weight > 0
    )


def _frozen_copy(module: nn.Module) -> nn.Module:
    return deepcopy(module).cpu().eval().requires_grad_(False)
