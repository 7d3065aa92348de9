"""Options of transductive classification, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mcfa_fast.data.checks import check_labels
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import as_array
from mcfa_fast.training.config import Options

__all__ = ["Labelled", "TransductionConfig", "as_class_sizes", "as_groups", "as_scores"]


class TransductionConfig(Options):
    """Strengths of transductive classification, see
    :func:`~mcfa_fast.classifiers.transductive.transduce`.

    The defaults do well among held-out seen classes of AID and WHU-RS19, with and without labelled
    images.
    """

    temperature: float = Field(
        0.25,
        gt=0,
        description="Temperature T of the initial posteriors, as a multiple of the scores' "
        "spread.",
    )
    balance: float = Field(
        0.9,
        ge=0,
        le=1,
        description="How far the initial posteriors are drawn to the class sizes: 0 not at all, 1 "
        "until their means agree (Sinkhorn).",
    )
    rounds: int = Field(15, ge=0, description="Rounds; 0 leaves the initial posteriors.")
    likelihood: float = Field(
        0.5, ge=0, description="Weight β of the Gaussian likelihood, per effective dimension."
    )
    neighbours: int = Field(10, ge=0, description="Nearest neighbours of an image.")
    neighbour_weight: float = Field(
        10.0, ge=0, description="Weight ν of the neighbours' mean posterior."
    )
    initial: float = Field(
        1.0, ge=0, description="Weight α of the logarithm of the initial posteriors."
    )
    whitening: float | None = Field(
        0.1,
        gt=0,
        description="Shrinkage of the covariance within classes of labelled images, whose inverse "
        "root is applied to the features; None applies none.",
    )


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with labels.

    Attributes:
        features: [L, F].
        labels: class index [L] of every row.
    """

    features: FeatureRows
    labels: np.ndarray

    @classmethod
    def of(cls, features: Any, labels: Any) -> Labelled:
        """Of arrays, tensors or feature rows.

        Raises:
            TypeError, ValueError: when they are not such, or not of one length.
        """
        rows = FeatureRows.of(features)
        labels = as_array(labels)
        return cls(rows, check_labels(labels, len(rows), np.iinfo(np.int64).max))

    def checked(self, width: int) -> Labelled:
        """Itself, if its rows are as wide as those of the images to classify."""
        if self.features.width != width:
            raise ValueError(
                f"labelled: expected features of {width} columns, got {self.features.width}"
            )
        return self


def as_scores(values: Any) -> Tensor:
    """Scores as a float32 tensor [N, K] that may be written to."""
    scores = as_array(values)
    if scores.ndim != 2 or not scores.shape[1]:
        raise ValueError(f"scores: expected shape [N, K] with K >= 1, got {scores.shape}")
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"scores: expected real numbers, got {scores.dtype}")
    with np.errstate(over="ignore"):
        copy = torch.from_numpy(np.array(scores, dtype=np.float32))
    if not torch.isfinite(copy.sum()) and not (finite := copy.isfinite().all(dim=1)).all():
        row = int(finite.logical_not().nonzero()[0])
        raise ValueError(f"scores: NaN or infinity in row {row} (in float32)")
    return copy


def as_class_sizes(values: Any, columns: int) -> Tensor:
    """Positive float64 [K] that sum to 1; as many of each class for None."""
    if values is None:
        return torch.full((columns,), 1 / columns, dtype=torch.float64)
    sizes = np.asarray(values, dtype=np.float64)
    if sizes.shape != (columns,) or not np.isfinite(sizes).all() or not (sizes > 0).all():
        raise ValueError(
            f"class_sizes: expected {columns} finite numbers above 0, one per column of scores, "
            f"got {values!r:.60}"
        )
    return torch.from_numpy(sizes / sizes.sum())


def as_groups(values: Any, columns: int, name: str = "groups") -> np.ndarray:
    """Integers [K]; for None one group of all, or the columns' numbers as their `classes`."""
    if values is None:
        return np.arange(columns) if name == "classes" else np.zeros(columns, np.int64)
    found = np.asarray(values)
    if found.shape != (columns,) or found.dtype.kind not in "iub":
        raise ValueError(
            f"{name}: expected {columns} integers, one per column of scores, got {values!r:.60}"
        )
    if name == "classes" and len(np.unique(found)) != columns:
        raise ValueError(f"classes: expected distinct labels, got {values!r:.60}")
    return found.astype(np.int64)
