"""A visual and a semantic VAE that share one latent space."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mcfa_fast import functional
from mcfa_fast.chunked import in_chunks
from mcfa_fast.systems.scaling import make_scaler
from mcfa_fast.systems.vae.config import VAEConfig
from mcfa_fast.systems.vae.networks import VAE
from mcfa_fast.training.ranks import Share, draw_rows

__all__ = ["AlignedVAEs", "VAEOutput"]


class VAEOutput(NamedTuple):
    """One batch as the model saw it and all that it made of it.

    N instances, C classes, F visual features, A semantic features, D latent features.
    Class-level results have one row per class; ``labels`` gathers them per instance.
    """

    features: Tensor
    """[N, F] scaled visual features, the input."""
    semantics: Tensor
    """[C, A] class descriptors, the input."""
    labels: Tensor
    """[N] row of ``semantics`` of each instance, the input."""
    visual_mean: Tensor
    """[N, D]"""
    visual_logvar: Tensor
    """[N, D]"""
    visual_latents: Tensor
    """[N, D] sampled."""
    semantic_mean: Tensor
    """[C, D]"""
    semantic_logvar: Tensor
    """[C, D]"""
    semantic_latents: Tensor
    """[C, D] sampled, one latent shared by all instances of the class."""
    visual_reconstruction: Tensor | None
    """[N, F] visual decoding of the visual latents; None, as the next three, if the configuration
    gives reconstructions no weight."""
    semantic_reconstruction: Tensor | None
    """[C, A] semantic decoding of the semantic latents."""
    visual_from_semantic: Tensor | None
    """[C, F] visual decoding of the semantic latents."""
    semantic_from_visual: Tensor | None
    """[N, A] semantic decoding of the visual latents."""


class AlignedVAEs(nn.Module):
    """Visual and semantic VAE with one latent space.

    Args:
        visual_features: Visual dimensions F.
        semantic_features: Semantic dimensions A.
        config: Sizes, sampling options and the seed of the initial weights.

    Source:
        Liu et al., Section II-A and Fig. 1.

    Example:
        >>> model = AlignedVAEs(8, 6, VAEConfig(latent_features=4))
        >>> mean, logvar = model.encode_visual(torch.zeros(3, 8))
        >>> mean.shape
        torch.Size([3, 4])
    """

    def __init__(self, visual_features: int, semantic_features: int, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_features = visual_features
        self.semantic_features = semantic_features
        self.scale_power = config.scale_power
        self.noise_per_row = config.noise == "row"
        self.reconstructs = config.reconstruction_weight + config.cross_reconstruction_weight > 0
        generator = config.generator("weights")
        self.scaler = make_scaler(config.feature_scaling, visual_features)
        self.semantic_scaler = make_scaler(config.semantic_scaling, semantic_features)
        self.visual = VAE(
            visual_features,
            config.visual_hidden,
            config.latent_features,
            config.visual_decoder_hidden,
            generator,
        )
        self.semantic = VAE(
            semantic_features,
            config.semantic_hidden,
            config.latent_features,
            config.semantic_decoder_hidden,
            generator,
        )

    def encode_visual(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [N, D] of raw (unscaled) visual ``features`` [N, F].

        Raises:
            ValueError: If ``features`` does not have F columns.
        """
        return self.visual.encode(self.scaler(features))

    def encode_semantic(self, semantics: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [C, D] of raw (unscaled) class descriptors ``semantics`` [C, A].

        Raises:
            ValueError: If ``semantics`` does not have A columns.
        """
        return self.semantic.encode(self.semantic_scaler(semantics))

    def sample(
        self,
        mean: Tensor,
        logvar: Tensor,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> Tensor:
        r"""Latents :math:`\mu + \sigma \varepsilon` drawn from the given Gaussians.

        :math:`\sigma = e^{logvar / 2}` with ``sampling_scale="std"`` and :math:`e^{logvar}` with
        ``"variance"``; :math:`\varepsilon` is drawn per element with ``noise="element"`` and once
        per row with ``"row"``.

        Args:
            mean: [N, D].
            logvar: [N, D].
            generator: Source of the noise, on the device of ``mean``; None draws from PyTorch's
                global generator.
            share: Which part of a batch the rows are; None is all of it.

        Returns:
            [N, D].
        """
        width = 1 if self.noise_per_row else mean.shape[1]

        def draw(rows: int) -> Tensor:
            return torch.randn(
                rows, width, generator=generator, dtype=mean.dtype, device=mean.device
            )

        noise = draw_rows(draw, len(mean), share)
        return functional.reparameterize(mean, logvar, noise, power=self.scale_power)

    def forward(
        self,
        features: Tensor,
        semantics: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> VAEOutput:
        """Encodes, samples and decodes one batch in both modalities.

        Each class is encoded, sampled and decoded once, whatever its number of instances.

        Args:
            features: [N, F] **scaled** visual features, ``model.scaler(raw)``.
            semantics: [C, A] **scaled** descriptors of the batch's classes,
                ``model.semantic_scaler(raw)``.
            labels: [N] int64, the row of ``semantics`` of each instance, in 0..C-1.
            generator: Source of the sampling noise, on the device of ``features``.
            share: Which part of a batch the instances are; None is all of it.

        Returns:
            The batch and all that an objective needs of it.

        Raises:
            TypeError: If ``labels`` is not int64.
            ValueError: If a shape is wrong.
        """
        if labels.dtype != torch.int64:
            raise TypeError(f"labels: expected int64, got {labels.dtype}")
        if labels.shape != features.shape[:1]:
            raise ValueError(
                f"labels: expected one per row of features [{features.shape[0]}], "
                f"got {list(labels.shape)}"
            )
        visual_mean, visual_logvar = self._by_rows(self.visual.encode, features)
        semantic_mean, semantic_logvar = self._by_rows(self.semantic.encode, semantics)
        visual_latents = self.sample(visual_mean, visual_logvar, generator, share)
        semantic_latents = self.sample(semantic_mean, semantic_logvar, generator)
        visual_reconstruction = visual_from_semantic = None
        semantic_reconstruction = semantic_from_visual = None
        if self.reconstructs:
            # Both kinds of latents pass each decoder together: half the calls.
            latents = torch.cat([visual_latents, semantic_latents])
            sizes = [len(visual_latents), len(semantic_latents)]
            visual_reconstruction, visual_from_semantic = self._by_rows(
                self.visual.decode, latents
            ).split(sizes)
            semantic_from_visual, semantic_reconstruction = self._by_rows(
                self.semantic.decode, latents
            ).split(sizes)
        return VAEOutput(
            features=features,
            semantics=semantics,
            labels=labels,
            visual_mean=visual_mean,
            visual_logvar=visual_logvar,
            visual_latents=visual_latents,
            semantic_mean=semantic_mean,
            semantic_logvar=semantic_logvar,
            semantic_latents=semantic_latents,
            visual_reconstruction=visual_reconstruction,
            semantic_reconstruction=semantic_reconstruction,
            visual_from_semantic=visual_from_semantic,
            semantic_from_visual=semantic_from_visual,
        )

    def _by_rows(self, function: Callable[[Tensor], Any], rows: Tensor) -> Any:
        chunk_size = self.config.training.chunk_size
        return function(rows) if chunk_size is None else in_chunks(function, rows, chunk_size)
