"""Options that systems of two aligned VAEs share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcfa_fast.systems.base import TrainableConfig

__all__ = ["VAEConfig"]


class VAEConfig(TrainableConfig):
    """Sizes, sampling, input scaling and the weights of the terms that all of them have."""

    reconstruction_weight: float = Field(
        1.0, ge=0, description="Weight of each modality's own reconstruction."
    )
    cross_reconstruction_weight: float = Field(
        1.0, ge=0, description="Weight of the cross-modal reconstruction."
    )
    alignment_weight: float = Field(
        1.0, ge=0, description="Weight of the Wasserstein alignment."
    )
    kl_weight: float = Field(
        1.0, ge=0, description="Weight of the KL divergence to the unit Gaussian."
    )
    class_weighting: Literal["instances", "rows"] = Field(
        "instances",
        description="Weight of a class's own terms (descriptor reconstruction and KL): its number "
        "of instances in the batch, or one per class present.",
    )
    latent_features: int = Field(64, ge=1, description="Dimensions of the latent space.")
    visual_hidden: int = Field(512, ge=1, description="Hidden units of the visual encoder.")
    visual_decoder_hidden: int | None = Field(
        None, ge=1, description="The same of the visual decoder. None: as many as the encoder."
    )
    semantic_hidden: int = Field(256, ge=1, description="Hidden units of the semantic encoder.")
    semantic_decoder_hidden: int | None = Field(
        None, ge=1, description="The same of the semantic decoder. None: as many as the encoder."
    )
    sampling_scale: Literal["std", "variance"] = Field(
        "std", description="Scale of the sampling noise: exp(logvar / 2) or exp(logvar)."
    )
    noise: Literal["element", "row"] = Field(
        "element", description="One noise value per latent element, or one per row shared by all."
    )
    feature_scaling: Literal["minmax", "unit", "none"] = Field(
        "minmax",
        description="Scale visual features to 0..1 over the training rows (no clipping), or to "
        "unit length and centred, or not.",
    )
    semantic_scaling: Literal["unit", "none"] = Field(
        "none",
        description="Scale descriptors to unit length, centred over the classes with training "
        "rows, or not.",
    )

    @property
    def scale_power(self) -> float:
        """The p of σ = exp(p · logvar) with which latents are sampled."""
        return {"std": 0.5, "variance": 1.0}[self.sampling_scale]
