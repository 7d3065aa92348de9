"""Options of training: batches, epochs, step size, precision."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Options", "TrainingConfig"]

_PAPER_BATCH = 25  # instances; MCFA's batch for zero-shot classification


class Options(BaseModel):
    """Base of all groups of options: immutable, validated, no unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


class TrainingConfig(Options):
    """Options of a training by batches.

    Example:
        >>> TrainingConfig(sampler="batch", batch_size=400).batch_rows(8000)
        400
    """

    sampler: Literal["episodic", "batch"] = Field(
        "batch", description="Batches of c classes with k instances each, or shuffled batches."
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
    epochs: int = Field(50, ge=1, le=10**6, description="Passes over the training set.")
    learning_rate: float = Field(1.5e-4, gt=0, description="The optimizer's step size.")
    learning_rate_scaling: Literal["none", "sqrt", "linear"] = Field(
        "none",
        description="Multiply learning_rate by (batch / 25), by its square root or not at all, "
        "where 25 is the MCFA paper's batch for zero-shot classification.",
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

    def batch_rows(self, training_rows: int) -> int:
        """Instances in a full batch when there are ``training_rows`` rows to train on."""
        if self.sampler == "episodic":
            return self.classes_per_batch * self.instances_per_class
        return min(self.batch_size or training_rows, training_rows)

    def scaled_learning_rate(self, training_rows: int) -> float:
        """The step size after ``learning_rate_scaling``, for so many training rows.

        Example:
            >>> config = TrainingConfig(batch_size=400, learning_rate_scaling="sqrt")
            >>> config.scaled_learning_rate(8000) / config.learning_rate
            4.0
        """
        power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[self.learning_rate_scaling]
        return self.learning_rate * (self.batch_rows(training_rows) / _PAPER_BATCH) ** power
