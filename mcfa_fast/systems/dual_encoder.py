"""A dual encoder: one linear map per modality, trained by the cross-modal contrasts of MCFA."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mcfa_fast import functional, ops
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.systems.base import System, TrainableConfig
from mcfa_fast.systems.batches import BatchTraining, StepInput, TrainingBatch
from mcfa_fast.systems.folded_encoder import FoldedEncoder
from mcfa_fast.systems.presets import Preset, Task
from mcfa_fast.systems.scaling import UnitScaler
from mcfa_fast.systems.vae.networks import xavier_linear
from mcfa_fast.training.config import TrainingConfig
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.training.ranks import Share, draw_rows
from mcfa_fast.training.update import Update

__all__ = ["DualEncoder", "DualEncoderConfig", "recommended"]


class DualEncoderConfig(TrainableConfig):
    """Options of the dual encoder; the defaults are those of highest accuracy among held-out seen
    classes of AID (docs/accuracy.md has what was tried)."""

    vtos_weight: float = Field(
        1.0, ge=0, description="Weight of the visual-to-semantic contrast (MCFA, Eq. 5)."
    )
    stov_weight: float = Field(
        10.0, ge=0, description="Weight of the semantic-to-visual contrast (MCFA, Eq. 6)."
    )
    temperature: float = Field(
        0.2, ge=1e-3, le=1e3, description="Temperature τ of the contrastive losses."
    )
    embedding_features: int = Field(64, ge=1, description="Dimensions of the common space.")
    visual_dropout: float = Field(
        0.6,
        ge=0,
        lt=1,
        description="Share of the visual inputs that each training step sets to 0.",
    )
    semantic_gain: float = Field(
        0.05,
        gt=0,
        description="Gain of the semantic map's initial weights, which it keeps in directions that "
        "no training class spans.",
    )
    training: TrainingConfig = Field(
        TrainingConfig(batch_size=256, epochs=8, learning_rate=3e-3),
        description="Batches, epochs, step size, precision.",
    )


class _Maps(nn.Module):
    """Scalers and maps of both modalities.

    The random numbers are those of MCFA with the same widths, whose log-variances and decoders are
    drawn and dropped: a dual encoder is then, bit for bit, MCFA restricted to its two losses, which
    is how its published results were obtained.
    """

    def __init__(
        self, visual_features: int, semantic_features: int, config: DualEncoderConfig
    ) -> None:
        super().__init__()
        width, generator = config.embedding_features, config.generator("weights")
        self.scaler = UnitScaler(visual_features)
        self.semantic_scaler = UnitScaler(semantic_features)
        self.visual = xavier_linear(visual_features, width, generator)
        torch.empty(2, visual_features, width).uniform_(generator=generator)
        self.semantic = xavier_linear(
            semantic_features, width, generator, gain=config.semantic_gain
        )


class DualEncoder(System):
    r"""Two linear maps into one space, trained by contrasting images with classes.

    .. math:: \ell = \lambda_4 \ell_{VtoS} + \lambda_5 \ell_{StoV}

    over inputs of unit length, centred. What regularises it, with a few dozen classes to learn
    from, is dropout of the visual inputs, a small initial map of the descriptors and an early end.

    Source:
        The losses are Eqs. 5 and 6 of Liu et al. (see
        :class:`~mcfa_fast.systems.mcfa.system.MCFASystem`), between embeddings in place of sampled
        latents; the rest is this library's own.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> classifier = ZeroShotClassifier("dual-encoder", options={"epochs": 1})
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> classifier.predict(digits.features[:5]).shape
        (5,)
    """

    name = "dual-encoder"
    Config = DualEncoderConfig
    config: DualEncoderConfig

    def __init__(
        self,
        config: DualEncoderConfig,
        visual_features: int,
        semantic_features: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, visual_features, semantic_features, device=device)
        self.maps = _Maps(visual_features, semantic_features, config)
        self.finish()

    def trainable(
        self, data: TrainingData, *, resident: bool | None = None
    ) -> DualEncoderTraining:
        return DualEncoderTraining(self, data, resident)

    def finish(self) -> None:
        self._encoder = FoldedEncoder(self.maps.scaler, self.maps.visual)

    @property
    def embedding_features(self) -> int:
        return self.config.embedding_features

    def embed(self, features: Tensor) -> Tensor:
        return self._encoder(features)

    @torch.no_grad()
    def prototypes(self, semantics: Tensor) -> Tensor:
        return self.maps.semantic(self.maps.semantic_scaler(self._on_device(semantics))).cpu()

    @torch.no_grad()
    def scale_semantics(self, semantics: Tensor) -> Tensor:
        return self.maps.semantic_scaler(self._on_device(semantics)).cpu()

    def encoder(self) -> nn.Module:
        layers = nn.Sequential(self.maps.scaler, self.maps.visual)
        return deepcopy(layers).cpu().eval().requires_grad_(False)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.maps.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.maps.load_state_dict(state)
        self.maps.to(self.device).eval()
        self.finish()

    def _on_device(self, rows: Tensor) -> Tensor:
        return rows.to(self.maps.semantic.weight.device, self.maps.semantic.weight.dtype)


class DualEncoderTraining(BatchTraining):
    """The training of a :class:`DualEncoder`, by Adam with amsgrad.

    Args:
        system: Its maps are trained.
        data: The images of the seen classes.
        resident: See :func:`~mcfa_fast.training.placement.place`.
    """

    losses: tuple[str, ...] = ("total", "vtos", "stov")

    def __init__(self, system: DualEncoder, data: TrainingData, resident: bool | None) -> None:
        maps = system.maps
        super().__init__(
            system,
            data,
            maps,
            scaler=maps.scaler,
            semantic_scaler=maps.semantic_scaler,
            resident=resident,
        )
        self._system, self._maps, self._config = system, maps, system.config
        self._optimizer = FusedAdam(maps.parameters(), self.learning_rate)
        self.optimizers = (self._optimizer,)

    def step(self, batch: TrainingBatch, update: Update) -> Tensor:
        mixed = self._config.training.precision == "bf16"
        device = batch.inputs.features.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=mixed):
            losses = self._losses(batch.inputs, batch.share)
        self._optimizer.zero_grad()
        losses[0].backward()
        update.apply(self._optimizer)
        return torch.stack(losses).detach()

    def _losses(
        self, batch: StepInput, share: Share | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        config = self._config
        visual = self._maps.visual(self._drop(batch.features, share))
        semantic = self._maps.semantic(batch.semantics)
        # As much noise as MCFA would sample latents with, see _Maps.
        for rows in (len(visual) if share is None else share.total, len(semantic)):
            torch.randn(rows, semantic.shape[1], generator=self.noise, device=visual.device)
        vtos, stov = self._contrasts(visual, semantic, batch.labels, share)
        return config.vtos_weight * vtos + config.stov_weight * stov, vtos, stov

    def _contrasts(
        self, visual: Tensor, semantic: Tensor, labels: Tensor, share: Share | None
    ) -> tuple[Tensor, Tensor]:
        """VtoS and StoV of the whole batch."""
        temperature = self._config.temperature
        if share is not None:
            compared, group = (visual, semantic, labels), share.group
            vtos = functional.vtos_loss(*compared, temperature=temperature, group=group)
            stov = functional.stov_loss(*compared, temperature=temperature, group=group)
            return share.once(vtos), share.once(stov)
        _, vtos, stov = ops.contrastive(
            visual,
            semantic,
            labels,
            temperature,
            vtov=False,
            vtos=True,
            stov=True,
            positives="out",
            reduction="sum",
            normalize=True,
            ignore_index=-100,
        )
        return vtos, stov

    def _drop(self, features: Tensor, share: Share | None) -> Tensor:
        kept = 1 - self._config.visual_dropout
        if kept == 1:
            return features

        def draw(rows: int) -> Tensor:
            mask = features.new_empty(rows, features.shape[1])
            return mask.bernoulli_(kept, generator=self.noise)

        return features * draw_rows(draw, len(features), share).div_(kept)


def recommended(task: Task) -> Preset:
    """The settings of highest accuracy among held-out seen classes of AID."""
    heads: dict[str, Any] = {"nearest": {"prototype_kernel": 0.5}}
    if task == "zsl":
        return Preset(heads=heads)
    return Preset(
        options={"visual_dropout": 0.5, "epochs": 16},
        heads={"nearest": {"prototype_kernel": 0.5, "whitening": 3.0, "seen_gain": 3.0}},
    )
