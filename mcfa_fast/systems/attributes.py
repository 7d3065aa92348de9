"""Binary attributes of classes, and class scores from attribute probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import nn

from mcfa_fast.systems.layers import affine

__all__ = ["BinaryAttributes"]


class BinaryAttributes(NamedTuple):
    """Descriptors as binary attributes: 1 where a value exceeds its mean over the seen classes.

    An attribute that all seen classes share cannot be learned from them and is left out.

    Attributes:
        threshold: [A].
        kept: bool [A], which attributes differ among the seen classes.
        prior: [M] share of seen classes that have a kept attribute.
    """

    threshold: np.ndarray
    kept: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, seen: np.ndarray) -> BinaryAttributes:
        """The attributes that descriptors [S, A] of the seen classes define.

        Raises:
            ValueError: when all seen classes have the same descriptor.

        Example:
            >>> attributes = BinaryAttributes.of(np.array([[0.1, 5.0, 0.0], [0.7, 5.0, 1.0]]))
            >>> attributes.kept.tolist(), attributes(np.array([[0.3, 9.0, 1.0]])).tolist()
            ([True, False, True], [[0.0, 1.0]])
        """
        kept = (seen != seen[0]).any(axis=0)
        if not kept.any():
            raise ValueError("semantics: expected different descriptors of seen classes, got one")
        threshold = seen.mean(axis=0)
        return cls(threshold, kept, (seen > threshold)[:, kept].mean(axis=0))

    def __call__(self, semantics: np.ndarray) -> np.ndarray:
        """Kept attributes [K, M], 0 or 1, of descriptors [K, A]."""
        return (semantics > self.threshold)[:, self.kept].astype(semantics.dtype)

    def class_layer(self, semantics: np.ndarray) -> nn.Linear:
        """From log-odds [N, M] to class scores [N, K], for classes c of descriptors [K, A].

        ``Σ_m log p(a_m^c | x) / p(a_m^c)`` up to a term of the row alone, as a function of the
        log-odds ``log p(a_m = 1 | x) / p(a_m = 0 | x)``.

        Source:
            Lampert et al., "Learning to detect unseen object classes by between-class attribute
            transfer", 2009, Eqs. 2 and 4.
        """
        # With l the log-odds: a·log p + (1 - a)·log(1 - p) = a·l + log(1 - p).
        table = self(semantics)
        prior_odds = np.log(self.prior / (1 - self.prior))
        return affine(table.T, -(table @ prior_odds) - np.log1p(-self.prior).sum())
