"""What the baselines have in common, so that each implements only its own mathematics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.systems.checks_old import check_choice
from mcfa_fast.systems.preparation_old import ROWS_PER_CHUNK, FeaturePreparation, unit_rows
from mcfa_fast.systems.mcfa.config import Task
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.inputs import as_features, training_inputs
from mcfa_fast.classifiers.zero_shot import Candidates, ZeroShotClassifier

__all__ = ["Baseline", "TrainingData"]


class TrainingData(NamedTuple):
    """Prepared training rows of the S seen classes, numbered 0..S-1 anew.

    Attributes:
        features: [n, F], unit rows centred on their mean, of the baseline's `dtype`.
        labels: int64 [n] in 0..S-1.
        semantics: [S, A] descriptor of every seen class.
    """

    features: np.ndarray
    labels: np.ndarray
    semantics: np.ndarray


class Baseline(ZeroShotClassifier):
    """A zero-shot classifier to compare with, in the manner of scikit-learn.

    Classes are numbered 0..C-1, by the rows of `semantics`. All baselines see the same input:
    features with unit rows, centred on the training mean; descriptors with unit rows.

    A subclass names itself in `method`, lists its hyperparameters, `task` and `calibration` as
    keyword arguments of ``__init__`` (also `seed` if it draws random numbers, `epochs` if it is
    trained by gradients, `device` if it can use one) and implements :meth:`_fit` and
    :meth:`_scores`. Where a part of the work does not depend on the hyperparameters, it belongs
    into :meth:`_prepare`, which is done once for a whole grid.

    Args:
        task: "zsl" predicts among the unseen classes by default, "gzsl" among all.
        calibration: what is subtracted from the scores of seen classes, in units of the scores
            (calibrated stacking; more favours unseen classes). None is 0.

    Attributes:
        method: the baseline's name.
        semantics_: descriptors [C, A] of all classes, as the baseline uses them.
        classes_, seen_classes_, unseen_classes_, class_names_, n_features_in_: see
            :class:`~mcfa_fast.classifiers.zero_shot.ZeroShotClassifier`.
    """

    method: ClassVar[str]
    dtype: ClassVar[type[np.floating]] = np.float64
    """Floating type of all arrays that a subclass gets."""
    unit_semantics: ClassVar[bool] = True
    """Whether descriptors are given unit rows; False for those that need the values themselves."""

    task: Task

    def fit(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
    ) -> Baseline:
        """Fit to the images of the seen classes.

        Args:
            features: raw features [n, F], for example a memory-mapped array.
            labels: class index [n] of every row, in 0..C-1.
            semantics: descriptors [C, A], one row per class.
            class_names: C distinct names; default ``class_0``, ``class_1``, ...
            unseen_classes: indices of the classes to predict without training rows; default all
                classes that have none.

        Returns:
            The baseline itself.

        Raises:
            TypeError, ValueError: on arguments of wrong types or shapes, values that are not
                finite, labels out of range, or no unseen class.
        """
        self._fit(self._begin(features, labels, semantics, class_names, unseen_classes))
        return self

    def fit_path(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        grid: Iterable[Mapping[str, Any]],
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
    ) -> Iterator[Baseline]:
        """Fit one setting of the hyperparameters after the other to the same images.

        Each result is the same as of :meth:`fit` with these hyperparameters, at a lower price:
        inputs are checked and prepared once.

        Args:
            features, labels, semantics, class_names, unseen_classes: see :meth:`fit`.
            grid: for every setting, the parameters to set. `epochs` varies fastest and ascends,
                so that a baseline which is trained by gradients can go on from where it is.

        Yields:
            The baseline itself after each setting; it changes with the next.

        Raises:
            TypeError, ValueError: as :meth:`fit`.
        """
        data = self._begin(features, labels, semantics, class_names, unseen_classes)
        for parameters in grid:
            self.set_params(**parameters)
            self._fit(data)
            yield self

    def score_path(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        grid: Iterable[Mapping[str, Any]],
        *,
        images: ArrayLike | Tensor,
        candidates: Candidates,
    ) -> Iterator[np.ndarray]:
        """Score other images with one setting of the hyperparameters after the other.

        Args:
            features, labels, semantics, grid: see :meth:`fit_path`.
            images: raw features [N, F] to score, which are prepared once.
            candidates: class indices or names [K], the columns.

        Yields:
            Uncalibrated scores [N, K] for each setting.

        Raises:
            TypeError, ValueError: as :meth:`fit_path` and :meth:`decision_function`.
        """
        prepared = None
        for fitted in self.fit_path(features, labels, semantics, grid):
            if prepared is None:
                prepared = self.preparation_.apply(as_features(images, self.n_features_in_))
                candidates = self._resolve(candidates)
            yield fitted._class_scores(prepared, candidates)

    @property
    def n_features_in_(self) -> int:
        check_is_fitted(self)
        return len(self.preparation_.mean)

    @property
    def classes_(self) -> np.ndarray:
        check_is_fitted(self)
        if self.task == "zsl":
            return self.unseen_classes_
        return np.union1d(self.seen_classes_, self.unseen_classes_)

    def _begin(
        self,
        features: Any,
        labels: Any,
        semantics: Any,
        class_names: Sequence[str] | None,
        unseen_classes: Any,
    ) -> Any:
        """Checks and keeps what does not depend on hyperparameters; what :meth:`_fit` is given."""
        check_choice(get_args(Task), task=self.task)
        inputs = training_inputs(features, labels, semantics, class_names, unseen_classes)
        table = inputs.semantics.numpy().astype(self.dtype)
        self.semantics_ = unit_rows(table) if self.unit_semantics else table
        self.class_names_ = inputs.class_names
        self.seen_classes_ = np.unique(inputs.labels)
        self.unseen_classes_ = inputs.unseen_classes.numpy()
        self.preparation_, prepared = FeaturePreparation.fit(inputs.features, self.dtype)
        local = np.searchsorted(self.seen_classes_, inputs.labels)
        return self._prepare(TrainingData(prepared, local, self.semantics_[self.seen_classes_]))

    def _candidate_scores(self, features: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        scores = np.empty((len(features), len(candidates)))
        for rows in row_chunks(len(features), ROWS_PER_CHUNK):
            scores[rows] = self._class_scores(self.preparation_.apply(features[rows]), candidates)
        return scores

    def _prepare(self, data: TrainingData) -> Any:
        """What :meth:`_fit` is given: `data`, or statistics of it without hyperparameters."""
        return data

    @abstractmethod
    def _fit(self, data: Any) -> None:
        """Fit to what :meth:`_prepare` returned, with the current hyperparameters.

        It may be called again with the same object after hyperparameters have changed. Descriptors
        of unseen classes are not among the data; a method that generates training data for them
        finds them in ``self.semantics_[self.unseen_classes_]``.
        """

    @abstractmethod
    def _scores(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Scores [N, K] of prepared features `x` [N, F] for descriptors `s` [K, A]."""

    def _class_scores(self, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Scores [N, K] for class indices [K], where they take more than the descriptors."""
        return self._scores(x, self.semantics_[classes])
