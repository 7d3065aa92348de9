"""A fitted classifier whose answers about an image depend on the others it is asked about."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mcfa_fast.classifiers.transductive import log_posteriors
from mcfa_fast.classifiers.transductive_inputs import Labelled, TransductionConfig
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import as_labels
from mcfa_fast.evaluation.metrics import mean_class_accuracy

if TYPE_CHECKING:
    from mcfa_fast.classifiers.heads import Head
    from mcfa_fast.classifiers.prediction import Candidates, PredictionMixin

__all__ = ["TransductiveClassifier"]


class TransductiveClassifier:
    """What ``ZeroShotClassifier.transductive`` gives.

    All its methods take a set of unlabelled images at once; their number, mixture and even one
    image more change the answers about the others. Nothing of a set is remembered.

    Args:
        classifier: fitted; its head's scores are refined.
        labelled: images with labels, see :func:`~mcfa_fast.classifiers.transductive.transduce`.
        config: strengths; None are those that selection chose for the head, else the defaults.
        progress: called with numbers of images, see there.
    """

    is_transductive = True

    def __init__(
        self,
        classifier: PredictionMixin,
        labelled: Labelled | None,
        config: TransductionConfig | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._classifier = classifier
        self._labelled = None if labelled is None else labelled.checked(classifier.n_features_in_)
        self._progress = progress
        selection = classifier.selection_
        chosen = None if selection is None else selection.transduction.get(self.head_.name)
        self.config = config or TransductionConfig(**(chosen.setting if chosen else {}))
        self.is_chosen = chosen is not None

    def with_progress(
        self, progress: Callable[[int, int], None] | None
    ) -> TransductiveClassifier:
        """The same, which tells its progress to another function."""
        copied = copy.copy(self)
        copied._progress = progress
        return copied

    @property
    def head_(self) -> Head:
        """The head whose scores are refined."""
        return self._classifier.head_

    @property
    def classes_(self) -> np.ndarray:
        """The classifier's, see there."""
        return self._classifier.classes_

    @property
    def effective_calibration(self) -> float:
        """0: the classifier's calibration is in the scores already, before they are refined."""
        return 0.0

    def decision_function(
        self,
        features: ArrayLike | Tensor | FeatureRows,
        *,
        candidates: Candidates | None = None,
        calibration: float | None = None,
    ) -> np.ndarray:
        """Log-posteriors [N, K] of a set of images, less the calibration for seen classes.

        Args:
            features: raw features [N, F] of the whole set, N >= 1; feature rows may be of a file.
            candidates: class indices or names [K], the columns; default `classes_`.
            calibration: what to subtract; None is 0, see :attr:`effective_calibration`.

        Raises:
            TypeError, ValueError: on bad features or unknown, repeated or no candidates.
        """
        classifier = self._classifier
        resolved = classifier.resolve(candidates)
        rows = FeatureRows.of(features)

        def scores_of(chunk: Tensor) -> Tensor:
            scores = classifier.decision_function(chunk, candidates=resolved)
            return torch.from_numpy(scores.astype(np.float32))

        seen = np.isin(resolved, classifier.seen_classes_)
        found = log_posteriors(
            rows.map(scores_of),
            rows,
            self.config,
            labelled=self._labelled,
            classes=resolved,
            groups=seen,
            progress=self._progress,
        )
        offset = self.effective_calibration if calibration is None else calibration
        return found - offset * seen

    def predict(
        self,
        features: ArrayLike | Tensor | FeatureRows,
        *,
        candidates: Candidates | None = None,
    ) -> np.ndarray:
        """Class index [N] of every image of the set, see :meth:`decision_function`."""
        resolved = self._classifier.resolve(candidates)
        return resolved[self.decision_function(features, candidates=candidates).argmax(axis=1)]

    def predict_proba(
        self,
        features: ArrayLike | Tensor | FeatureRows,
        *,
        candidates: Candidates | None = None,
    ) -> np.ndarray:
        """Posterior probabilities [N, K], see :meth:`decision_function`."""
        scores = self.decision_function(features, candidates=candidates)
        return torch.from_numpy(scores).softmax(dim=1).numpy()

    def score(
        self,
        features: ArrayLike | Tensor | FeatureRows,
        labels: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
    ) -> float:
        """Mean per-class top-1 accuracy in 0..1 of :meth:`predict`."""
        predictions = self.predict(features, candidates=candidates)
        labels = as_labels(labels, len(predictions), len(self._classifier.class_names_))
        return mean_class_accuracy(labels, predictions)


def labelled_of(features: Any, labels: Any) -> Labelled | None:
    """Both arguments as labelled images; None when there are none.

    Raises:
        TypeError, ValueError: when only one is given, or they do not fit together.
    """
    if (features is None) != (labels is None):
        raise ValueError("features, labels: expected both or neither, got one of them")
    return None if features is None else Labelled.of(features, labels)
