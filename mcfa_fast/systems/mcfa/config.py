"""Options of MCFA."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from typing_extensions import Self

from mcfa_fast.systems.mcfa.presets import preset
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.vae.config import VAEConfig
from mcfa_fast.training.config import TrainingConfig

__all__ = ["MCFAConfig"]


class MCFAConfig(VAEConfig):
    """Options of MCFA: losses, model and training.

    The defaults are the paper's settings for zero-shot classification, that is
    ``MCFAConfig.paper("zsl")``. A configuration is immutable; ``replace`` gives a changed,
    validated copy. ``model_dump_json`` and ``model_validate_json`` round-trip it through JSON.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) naming each option that is unknown, of a wrong
            type or out of its bounds.

    Source:
        Liu et al., "Multi-level Cross-modal Feature Alignment via Contrastive Learning towards
        Zero-shot Classification of Remote Sensing Image Scenes", Eqs. 1-7 and Table I.

    Example:
        >>> config = MCFAConfig.paper("gzsl", epochs=3)
        >>> config.training.instances_per_class, config.training.epochs
        (10, 3)
        >>> MCFAConfig.model_validate_json(config.model_dump_json()) == config
        True
    """

    cross_reconstruction_weight: float = Field(
        10.0, ge=0, description="Weight λ1 of the cross-modal reconstruction (Eq. 2)."
    )
    alignment_weight: float = Field(
        1.0, ge=0, description="Weight λ2 of the Wasserstein alignment (Eq. 3)."
    )
    vtov_weight: float = Field(
        100.0, ge=0, description="Weight λ3 of the visual-to-visual contrast (Eq. 4)."
    )
    vtos_weight: float = Field(
        100.0, ge=0, description="Weight λ4 of the visual-to-semantic contrast (Eq. 5)."
    )
    stov_weight: float = Field(
        10.0, ge=0, description="Weight λ5 of the semantic-to-visual contrast (Eq. 6)."
    )
    temperature: float = Field(
        2.0, ge=1e-3, le=1e3, description="Temperature τ of the contrastive losses."
    )
    positives: Literal["out", "in"] = Field(
        "out",
        description="Mean over positives outside the logarithm (Eqs. 4 and 6) or inside it.",
    )
    contrast: Literal["samples", "means"] = Field(
        "samples", description="Compare sampled latents, or the means, in the contrastive losses."
    )
    training: TrainingConfig = Field(
        TrainingConfig(sampler="episodic"), description="Batches, epochs, step size, precision."
    )

    @classmethod
    def paper(cls, task: Task = "zsl", **overrides: Any) -> Self:
        """The settings of the paper (Table I) for ``task``, with ``overrides`` applied.

        Args:
            task: ``"zsl"`` or ``"gzsl"``.
            **overrides: Options that differ from the preset, those of ``training`` included.

        Raises:
            ValueError: If ``task`` is neither, or an override is not valid.

        Example:
            >>> MCFAConfig.paper("zsl").vtov_weight
            100.0
        """
        return cls().replace(**{**preset("paper", task).options, **overrides})

    @classmethod
    def reference(cls, task: Task = "zsl", **overrides: Any) -> Self:
        """Settings that reproduce the authors' public code, to compare against it.

        Args:
            task: ``"zsl"`` or ``"gzsl"``.
            **overrides: Options that differ from the preset, those of ``training`` included.

        Raises:
            ValueError: If ``task`` is neither, or an override is not valid.

        Example:
            >>> MCFAConfig.reference("gzsl", offset_window=160).positives
            'in'
        """
        return cls().replace(**{**preset("reference", task).options, **overrides})
