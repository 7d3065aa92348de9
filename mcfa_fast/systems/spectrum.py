"""The second moments of the features, decomposed once for every regularisation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Spectrum", "class_sums"]


@dataclass(frozen=True)
class Spectrum:
    """Rows ``x`` in the basis of eigenvectors of ``x^T x = Q diag(λ) Q^T``.

    ``(x^T x + p·I)^-1 b = Q ((Q^T b) / (λ + p))`` for any p, without another factorisation.

    Attributes:
        x: the rows [n, F].
        values: λ [F], 0 or more.
        vectors: Q [F, F], in columns.
    """

    x: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Spectrum:
        """The spectrum of rows [n, F].

        Example:
            >>> Spectrum.of(np.array([[0.0, 2.0], [1.0, 0.0]])).values
            array([1., 4.])
        """
        values, vectors = np.linalg.eigh(x.T @ x)
        return cls(x, values.clip(min=0), vectors)

    @cached_property
    def rows(self) -> np.ndarray:
        """x·Q [n, F]."""
        return self.x @ self.vectors


def class_sums(x: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Sum [C, F] of the rows [n, F] of every class 0..C-1.

    Example:
        >>> class_sums(np.array([[1.0], [2.0], [4.0]]), np.array([1, 1, 0]), 2).tolist()
        [[4.0], [3.0]]
    """
    return (labels == np.arange(classes)[:, None]).astype(x.dtype) @ x
