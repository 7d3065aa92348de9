"""The input of every baseline: unit rows, and features centred on the training mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcfa_fast.data.chunks import row_chunks

__all__ = ["ROWS_PER_CHUNK", "FeaturePreparation", "unit_rows"]

ROWS_PER_CHUNK = 8192


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows [N, D] divided by their Euclidean norms; a row of zeros stays one.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)


@dataclass(frozen=True, eq=False)
class FeaturePreparation:
    """``x / |x| - mean``, the mean being that of the training rows after their normalisation.

    Attributes:
        mean: [F], of the floating type that prepared features have.
    """

    mean: np.ndarray

    @classmethod
    def fit(
        cls, features: np.ndarray, dtype: type[np.floating]
    ) -> tuple[FeaturePreparation, np.ndarray]:
        """The preparation for training rows [n, F], and the rows prepared by it.

        Example:
            >>> preparation, prepared = FeaturePreparation.fit(np.eye(2), np.float64)
            >>> preparation.mean.tolist(), prepared.tolist()
            ([0.5, 0.5], [[0.5, -0.5], [-0.5, 0.5]])
        """
        prepared = np.empty(features.shape, dtype)
        for rows in row_chunks(len(features), ROWS_PER_CHUNK):
            prepared[rows] = unit_rows(features[rows].astype(dtype))
        mean = prepared.mean(axis=0, dtype=np.float64).astype(dtype)
        prepared -= mean
        return cls(mean), prepared

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Prepared copy of rows [N, F]."""
        return unit_rows(features.astype(self.mean.dtype)) - self.mean
