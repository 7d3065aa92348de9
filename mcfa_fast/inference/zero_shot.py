"""What every zero-shot classifier shares: candidates, calibrated stacking, predictions, score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.evaluation.metrics import mean_class_accuracy
from mcfa_fast.inference.inputs import as_features, as_labels, resolve_candidates

__all__ = ["Candidates", "ZeroShotClassifier"]

Candidates = Sequence[int | str] | np.ndarray


class ZeroShotClassifier(ClassifierMixin, BaseEstimator, ABC):
    """Predictions of a classifier whose classes are numbered 0..C-1, some without training images.

    A subclass has a parameter `calibration`, a name `method`, sets the attributes below when it is
    fitted and scores candidates in :meth:`_candidate_scores`.

    Attributes:
        classes_: class indices that are predicted by default, ascending; the columns of scores.
        seen_classes_, unseen_classes_: class indices with and without training rows.
        class_names_: name of every class.
        n_features_in_: number of visual features F.

    Source:
        Calibrated stacking: Chao et al., "An empirical study and analysis of generalized zero-shot
        learning for object recognition in the wild", 2016, Eq. 7.
    """

    method: str
    calibration: float | None

    @property
    def effective_calibration(self) -> float:
        """What is subtracted from the scores of seen classes, unless a call says otherwise."""
        check_is_fitted(self)
        return 0.0 if self.calibration is None else self.calibration

    def decision_function(
        self,
        features: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
        calibration: float | None = None,
    ) -> np.ndarray:
        """Scores [N, K] of the candidates, less the calibration for seen classes.

        The highest is predicted. What a score is depends on the method.

        Args:
            features: raw features [N, F].
            candidates: class indices or names [K], the columns; default `classes_`.
            calibration: used instead of the classifier's own; None uses that.

        Raises:
            NotFittedError: before ``fit``.
            TypeError, ValueError: on bad features or unknown, repeated or no candidates.
        """
        check_is_fitted(self)
        candidates = self._resolve(candidates)
        scores = self._candidate_scores(self._checked(features), candidates)
        offset = self.effective_calibration if calibration is None else calibration
        return scores - offset * np.isin(candidates, self.seen_classes_)

    def predict(
        self, features: ArrayLike | Tensor, *, candidates: Candidates | None = None
    ) -> np.ndarray:
        """Class index [N] of every row, among the candidates (see :meth:`decision_function`)."""
        scores = self.decision_function(features, candidates=candidates)
        return self._resolve(candidates)[scores.argmax(axis=1)]

    def score(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
    ) -> float:
        """Mean per-class top-1 accuracy in 0..1 of :meth:`predict`."""
        predictions = self.predict(features, candidates=candidates)
        labels = as_labels(labels, len(predictions), len(self.class_names_))
        return mean_class_accuracy(labels, predictions)

    def _checked(self, features: ArrayLike | Tensor) -> np.ndarray:
        """Features [N, F] as an array; a subclass that checks their values later need not here."""
        return as_features(features, self.n_features_in_)

    @abstractmethod
    def _candidate_scores(self, features: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Uncalibrated scores float64 [N, K] of checked features for class indices [K]."""

    def _resolve(self, candidates: Candidates | None) -> np.ndarray:
        if candidates is None:
            return self.classes_
        known = np.union1d(self.seen_classes_, self.unseen_classes_)
        return resolve_candidates(candidates, known, self.class_names_)
