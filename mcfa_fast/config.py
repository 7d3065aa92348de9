"""Every option of the model, its training and its classifier, in one validated object."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcfa_fast.presets import REFERENCE, best_options, task_options

__all__ = ["MCFAConfig", "Task"]

Task = Literal["zsl", "gzsl"]

_PAPER_BATCH = 25  # instances, for zero-shot classification


class MCFAConfig(BaseModel):
    """Options of MCFA: losses, model, training and classifier.

    The defaults are the paper's settings for zero-shot classification, that is
    ``MCFAConfig.paper("zsl")``. A configuration is immutable; :meth:`replace` gives a changed,
    validated copy. ``model_dump_json`` and ``model_validate_json`` round-trip it through JSON.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) naming each option that is unknown, of a wrong
            type or out of its bounds.

    Source:
        Liu et al., "Multi-level Cross-modal Feature Alignment via Contrastive Learning towards
        Zero-shot Classification of Remote Sensing Image Scenes", Eqs. 1-7 and Table I.

    Example:
        >>> config = MCFAConfig.paper("gzsl", epochs=3)
        >>> config.instances_per_class, config.epochs
        (10, 3)
        >>> MCFAConfig.model_validate_json(config.model_dump_json()) == config
        True
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    mode: Literal["paper", "reference", "best"] = Field(
        "paper",
        description="Which preset this came from. No training depends on it; it decides which "
        "classifier a trained run answers with unless another is asked for.",
    )
    task: Task = Field(
        "zsl", description="Test among unseen classes only (zsl) or among all classes (gzsl)."
    )

    # Objective
    reconstruction_weight: float = Field(
        1.0, ge=0, description="Weight of each modality's own reconstruction (Eq. 1)."
    )
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
    kl_weight: float = Field(
        1.0, ge=0, description="Weight of the KL divergence to the unit Gaussian (Eq. 1)."
    )
    kl_warmup: tuple[int, int] | None = Field(
        None,
        description="Epochs over which the KL weight grows linearly from 0 to its value, as "
        "(first, last). None: constant.",
    )
    cross_reconstruction_warmup: tuple[int, int] | None = Field(
        None, description="The same for λ1."
    )
    alignment_warmup: tuple[int, int] | None = Field(None, description="The same for λ2.")
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
    class_weighting: Literal["instances", "rows"] = Field(
        "instances",
        description="Weight of a class's own terms (descriptor reconstruction and KL): its number "
        "of instances in the batch, or one per class present.",
    )

    # Model
    latent_features: int = Field(64, ge=1, description="Dimensions of the latent space.")
    visual_hidden: int | None = Field(
        512,
        ge=1,
        description="Hidden units of the visual VAE's layers. None: encoder and decoder are one "
        "linear map each.",
    )
    semantic_hidden: int | None = Field(256, ge=1, description="The same of the semantic VAE.")
    semantic_gain: float = Field(
        0.5,
        gt=0,
        description="Gain of the semantic VAE's initial weights. A linear encoder keeps its "
        "initial map of directions that no training class spans.",
    )
    visual_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the visual encoder's inputs that each training step sets to 0.",
    )
    semantic_dropout: float = Field(0.0, ge=0, lt=1, description="The same of the descriptors.")
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

    # Training
    sampler: Literal["episodic", "batch"] = Field(
        "episodic", description="Batches of c classes with k instances each, or shuffled batches."
    )
    classes_per_batch: int = Field(5, ge=1, description="Classes c of an episodic batch.")
    instances_per_class: int = Field(5, ge=1, description="Instances k per class of an episode.")
    shared_offsets: bool = Field(
        False,
        description="Take the same k positions within each class of an episode, instead of "
        "drawing them for each class.",
    )
    offset_window: int | None = Field(
        None,
        ge=1,
        description="Draw instances from the first this many training rows of each class (at most "
        "the rows there are). None: all rows; with shared_offsets, as many as the smallest class "
        "has.",
    )
    batch_size: int | None = Field(
        1024,
        ge=1,
        description="Instances per batch of the plain sampler, at most the training set; None "
        "takes the whole training set at once.",
    )
    epochs: int = Field(50, ge=1, description="Passes over the training set.")
    learning_rate: float = Field(1.5e-4, gt=0, description="Adam's step size for the VAEs.")
    learning_rate_scaling: Literal["none", "sqrt", "linear"] = Field(
        "none",
        description="Multiply learning_rate by (batch / 25), by its square root or not at all, "
        "where 25 is the paper's batch for zero-shot classification.",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="Compute in float32, or in bf16 where autocast sees fit."
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        description="Rows that pass an encoder or decoder at a time; each chunk is computed again "
        "for its gradients, which are those of the whole batch. None: all at once.",
    )
    selection: Literal["last", "folds", "validation", "test"] = Field(
        "last",
        description="Which epoch to keep: the last; the last, with calibrations for 'gzsl' chosen "
        "on three class-wise folds ('folds'); the best on held-out seen classes, with calibrations "
        "('validation'); or the best on the test rows (optimistic, for mode 'reference' only).",
    )
    validation_classes: int | None = Field(
        None,
        ge=1,
        description="Seen classes held out when selection is 'validation'; None: one fifth.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random stream.")

    # Classifier
    classifier_epochs: int = Field(50, ge=1, description="Passes over the generated latents.")
    classifier_batch_size: int = Field(32, ge=1, description="Latents per classifier batch.")
    classifier_learning_rate: float = Field(
        1e-3, gt=0, description="Adam's step size for the softmax classifier."
    )
    seen_latents: int = Field(
        0, ge=0, description="Latents generated per seen class from its training images."
    )
    unseen_latents: int = Field(
        200, ge=1, description="Latents generated per unseen class from its descriptor."
    )
    seen_choice: Literal["random", "first"] = Field(
        "random", description="Which training images of a seen class give its latents."
    )
    resample_latents: bool = Field(
        True, description="Generate fresh latents in every classifier epoch, or only once."
    )
    image_prototypes: bool = Field(
        False,
        description="Nearest class for task 'gzsl': a seen class is as near as the nearer of its "
        "descriptor's latent and the mean of its images' latents, not the former alone.",
    )
    prototype_kernel: float | None = Field(
        None,
        gt=0,
        description="Width of the softmax over descriptor similarities by which the nearest-class "
        "rule adds the image latents of seen classes to each class's latent. None: does not.",
    )
    latent_whitening: float | None = Field(
        None,
        gt=0,
        description="After training, latents are whitened by how they spread within the seen "
        "classes; this is the shrinkage, in units of the mean variance. None: they are not.",
    )
    seen_gain: float = Field(
        1.0,
        gt=0,
        description="Nearest class for task 'gzsl': similarities to seen classes are multiplied by "
        "this, before a calibration is subtracted. The larger, the more it depends on the seen "
        "classes alone whether an image is taken for one of theirs.",
    )
    drop_last: bool = Field(
        False, description="Leave out the classifier's last batch of an epoch when incomplete."
    )

    @model_validator(mode="after")
    def _check_selection(self) -> MCFAConfig:
        if self.selection == "test" and self.mode != "reference":
            raise ValueError(
                "selection='test' picks the epoch by its test accuracy, which is optimistic; it is "
                "allowed only with mode='reference'. Use selection='last' or 'validation'."
            )
        return self

    @field_validator("kl_warmup", "cross_reconstruction_warmup", "alignment_warmup")
    @classmethod
    def _check_warmup(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"expected epochs (first, last) with 0 <= first < last, got {value}")
        return value

    @classmethod
    def paper(cls, task: Task = "zsl", **overrides: Any) -> MCFAConfig:
        """The settings of the paper (Table I) for ``task``, with ``overrides`` applied.

        Args:
            task: ``"zsl"`` or ``"gzsl"``.
            **overrides: Options that differ from the preset.

        Raises:
            ValueError: If ``task`` is neither, or an override is not valid.

        Example:
            >>> MCFAConfig.paper("zsl").vtov_weight
            100.0
        """
        return cls(**{"mode": "paper", **task_options(task), **overrides})

    @classmethod
    def reference(cls, task: Task = "zsl", **overrides: Any) -> MCFAConfig:
        """Settings that reproduce the authors' public code, to compare against it.

        Results selected with this preset's ``selection="test"`` are optimistic: the reported epoch
        is the best one on the test rows.

        Args:
            task: ``"zsl"`` or ``"gzsl"``.
            **overrides: Options that differ from the preset.

        Raises:
            ValueError: If ``task`` is neither, or an override is not valid.

        Example:
            >>> MCFAConfig.reference("gzsl", offset_window=160).positives
            'in'
        """
        options = {**task_options(task), **REFERENCE, "drop_last": task == "gzsl"}
        return cls(**{**options, **overrides})

    @classmethod
    def best(cls, task: Task = "zsl", **overrides: Any) -> MCFAConfig:
        """Settings for accuracy: those of highest accuracy among held-out seen classes of AID.

        Two linear encoders, trained for some hundred steps by the cross-modal contrastive losses
        on latent means. What regularises them, with a few dozen classes to learn from, is dropout
        of the visual inputs and a small initial map of the descriptors. For ``"gzsl"`` latents are
        whitened within classes, and similarities to seen classes count three times. Meant for the
        classifier ``method="nearest"``, which :func:`mcfa_fast.experiment.run` and the command line
        take for it; an :class:`~mcfa_fast.inference.classifier.MCFAClassifier` has to be told.

        Args:
            task: ``"zsl"`` or ``"gzsl"``.
            **overrides: Options that differ from the preset.

        Raises:
            ValueError: If ``task`` is neither, or an override is not valid.

        Example:
            >>> MCFAConfig.best("gzsl").visual_hidden is None
            True
        """
        return cls(**{**best_options(task), **overrides})

    def replace(self, **changes: Any) -> MCFAConfig:
        """A validated copy with ``changes`` applied.

        Raises:
            ValueError: If a change is not valid.

        Example:
            >>> MCFAConfig().replace(epochs=7).epochs
            7
        """
        return type(self)(**{**self.model_dump(), **changes})

    @property
    def recommended_method(self) -> Literal["softmax", "nearest"]:
        """The classifier that the preset is meant for: "nearest" of mode "best", else "softmax".

        Example:
            >>> MCFAConfig.best("zsl").recommended_method
            'nearest'
        """
        return "nearest" if self.mode == "best" else "softmax"

    def batch_rows(self, training_rows: int) -> int:
        """Instances in a full batch when there are ``training_rows`` rows to train on."""
        if self.sampler == "episodic":
            return self.classes_per_batch * self.instances_per_class
        return min(self.batch_size or training_rows, training_rows)

    def scaled_learning_rate(self, training_rows: int) -> float:
        """Adam's step size after ``learning_rate_scaling``, for so many training rows.

        Example:
            >>> config = MCFAConfig(sampler="batch", batch_size=400, learning_rate_scaling="sqrt")
            >>> config.scaled_learning_rate(8000) / config.learning_rate
            4.0
        """
        power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[self.learning_rate_scaling]
        return self.learning_rate * (self.batch_rows(training_rows) / _PAPER_BATCH) ** power

    def generator(self, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A new random generator for one purpose, independent of every other ``stream``.

        The library draws from such generators only, never from PyTorch's global one, so results
        depend on ``seed`` and not on what ran before.

        Args:
            stream: Name of the purpose, for example ``"sampler"``.
            device: Where the generator draws.

        Example:
            >>> first = torch.rand(2, generator=MCFAConfig(seed=1).generator("noise"))
            >>> again = torch.rand(2, generator=MCFAConfig(seed=1).generator("noise"))
            >>> torch.equal(first, again)
            True
        """
        digest = hashlib.blake2b(f"{self.seed}/{stream}".encode(), digest_size=8).digest()
        # 63 bits: manual_seed takes a signed 64-bit number.
        return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
