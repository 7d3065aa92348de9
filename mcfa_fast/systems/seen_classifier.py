"""Linear classification among the seen classes, which other methods build on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mcfa_fast.systems.linear import Linear, fit_linear
from mcfa_fast.systems.solved import PreparedData
from mcfa_fast.systems.spectrum import Spectrum

__all__ = ["SeenClassifier"]


class SeenClassifier:
    """One linear function per seen class, trained once for every penalty in a row.

    Args:
        data: prepared training rows.
        loss: "softmax", a logistic regression with intercepts, or "squared_hinge", a support
            vector machine without intercepts for each class against the others.

    Attributes:
        semantics: descriptors [S, A] of the seen classes.
    """

    def __init__(self, data: PreparedData, loss: Literal["softmax", "squared_hinge"]) -> None:
        self.semantics = data.semantics
        self._loss = loss
        self._spectrum = Spectrum.of(data.features)
        own = data.labels[:, None] == np.arange(len(data.semantics))
        self._targets = np.where(own, 1.0, 0.0 if loss == "softmax" else -1.0)
        self._last: tuple[float, Linear] | None = None

    def fit(self, penalty: float) -> Linear:
        """The S functions; those of the call before if the penalty is the same."""
        if self._last is None or self._last[0] != penalty:
            linear = fit_linear(
                self._spectrum,
                self._targets,
                loss=self._loss,
                penalty=penalty,
                intercept=self._loss == "softmax",
            )
            self._last = (penalty, linear)
        return self._last[1]
