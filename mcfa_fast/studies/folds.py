"""The folds of the seen classes on which methods and options are judged."""

from __future__ import annotations

import numpy as np

from mcfa_fast.config import MCFAConfig
from mcfa_fast.data.folds import ClassFold, class_folds

__all__ = ["FOLDS", "selection_folds"]

FOLDS = 3


def selection_folds(
    labels: np.ndarray, count: int, *, generalized: bool, seed: int
) -> list[ClassFold]:
    """The folds on which a run with this seed is judged, see
    :func:`~mcfa_fast.data.folds.class_folds`.

    Raises:
        ValueError: when there are too few seen classes.
    """
    generator = MCFAConfig(seed=seed).generator("class folds")
    return class_folds(labels, count, generalized=generalized, generator=generator)
