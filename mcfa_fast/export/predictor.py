"""Classification with an exported file, whichever format it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mcfa_fast.data.inputs import as_features
from mcfa_fast.export.metadata import Metadata

__all__ = ["OnnxPredictor", "Predictor", "TorchPredictor"]

_ROWS_PER_CHUNK = 8192


class Predictor(ABC):
    """A classifier that was read from an exported file, see :func:`load_exported`.

    Attributes:
        metadata: what the file says about itself.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K columns of :meth:`scores`."""
        return self.metadata.class_names

    def scores(self, features: ArrayLike | Tensor) -> np.ndarray:
        """Scores [N, K], float32, of raw features [N, F]; the highest is the prediction.

        What a score is depends on the head; the calibration of seen classes is subtracted. The
        rows are computed in chunks, so `features` may be a file of any size.

        Raises:
            TypeError, ValueError: on features of a wrong type or shape, or that are not finite or
                so large that scores are not.
        """
        features = as_features(features, self.metadata.features)
        scores = np.empty((len(features), len(self.class_names)), dtype=np.float32)
        for start in range(0, len(features), _ROWS_PER_CHUNK):
            rows = slice(start, start + _ROWS_PER_CHUNK)
            scores[rows] = self._scores(np.array(features[rows], dtype=np.float32))
            finite = np.isfinite(scores[rows]).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"the scores of row {start + int(finite.argmin())} are not finite: its values "
                    f"are too large for this {self.metadata.system}"
                )
        return scores

    def predict(self, features: ArrayLike | Tensor) -> np.ndarray:
        """Class name [N] of every row (see :meth:`scores`)."""
        return np.array(self.class_names)[self.scores(features).argmax(axis=1)]

    @abstractmethod
    def _scores(self, features: np.ndarray) -> np.ndarray:
        """Scores of contiguous float32 rows."""


class TorchPredictor(Predictor):
    """TorchScript or torch.export, run by PyTorch."""

    def __init__(self, metadata: Metadata, module: Any) -> None:
        super().__init__(metadata)
        self._module = module

    @torch.no_grad()
    def _scores(self, features: np.ndarray) -> np.ndarray:
        return self._module(torch.from_numpy(features)).numpy()


class OnnxPredictor(Predictor):
    """ONNX, run by ONNX Runtime."""

    def __init__(self, metadata: Metadata, session: Any) -> None:
        super().__init__(metadata)
        self._session = session

    def _scores(self, features: np.ndarray) -> np.ndarray:
        return self._session.run(["scores"], {"features": features})[0]
