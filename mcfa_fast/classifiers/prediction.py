"""What a fitted zero-shot classifier answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.fitted import Fitted
from mcfa_fast.classifiers.heads import ClassTable, Head
from mcfa_fast.classifiers.heads.ensemble import EnsembleHead
from mcfa_fast.classifiers.reading import read_chunks, row_parts
from mcfa_fast.classifiers.transductive_inputs import TransductionConfig
from mcfa_fast.classifiers.transductive_view import TransductiveClassifier, labelled_of
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import as_features, as_labels, check_columns, resolve_candidates
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.evaluation.metrics import mean_class_accuracy
from mcfa_fast.selection.result import Selection
from mcfa_fast.systems.base import System

__all__ = ["UNKNOWN", "Candidates", "PredictionMixin"]

Candidates = Sequence["int | str"] | np.ndarray

UNKNOWN = -1
"""What :meth:`PredictionMixin.predict` returns for an image that it rejects."""


class PredictionMixin(ClassifierMixin):
    """Scores, predictions and probabilities of a fitted classifier's head.

    The attributes are those of :class:`~mcfa_fast.classifiers.zero_shot.ZeroShotClassifier`, which
    explains them.
    """

    is_transductive = False
    head: str | None
    calibration: float | None
    weight: float | None
    rejection_rate: float
    threshold: float | None
    run_: RunConfig
    selection_: Selection | None
    fitted_: Fitted
    class_names_: tuple[str, ...]

    @property
    def system_(self) -> System:
        """The trained system."""
        check_is_fitted(self, "fitted_")
        return self.fitted_.system

    @property
    def heads_(self) -> Mapping[str, Head]:
        """Its heads, by name."""
        check_is_fitted(self, "fitted_")
        return self.fitted_.heads

    @property
    def table_(self) -> ClassTable:
        """Descriptors of all classes, and which are seen."""
        check_is_fitted(self, "fitted_")
        return self.fitted_.table

    @property
    def head_(self) -> Head:
        """The head that answers.

        Raises:
            ValueError: when the system has no such head.
        """
        heads, name = self.heads_, self.head or self.run_.head
        if name not in heads:
            raise ValueError(f"head: {self.run_.system} has {', '.join(heads)}, got {name!r}")
        return heads[name]

    @property
    def n_features_in_(self) -> int:
        """Number of visual features F."""
        return self.system_.visual_features

    @property
    def classes_(self) -> np.ndarray:
        """Indices of the classes that are predicted by default, ascending; columns of scores."""
        table = self.table_
        return (table.unseen if self.run_.task == "zsl" else table.all).numpy()

    @property
    def seen_classes_(self) -> np.ndarray:
        """Indices of the classes with training images, ascending."""
        return self.table_.seen.numpy()

    @property
    def unseen_classes_(self) -> np.ndarray:
        """Indices of the classes that are known by description only, ascending."""
        return self.table_.unseen.numpy()

    @property
    def effective_calibration(self) -> float:
        """The calibration in force: the given one, else selection's for the head, else 0.

        Raises:
            ValueError: when it is not a finite number.
        """
        head = self.head_
        if self.calibration is not None:
            return _finite("calibration", self.calibration)
        chosen = {} if self.selection_ is None else self.selection_.calibration
        return chosen.get(head.name, 0.0) * head.calibration_unit

    @property
    def effective_weight(self) -> float | None:
        """The ensemble's weight in force: the given one, else selection's, else its options'; None
        where the system has no ensemble.

        Raises:
            ValueError: when it is not a share in 0..1.
        """
        if "ensemble" not in self.heads_:
            return None
        weight = self.weight
        if weight is None and self.selection_ is not None:
            weight = self.selection_.weight
        if weight is None:
            weight = self.heads_["ensemble"].options.weight
        if not 0 <= weight <= 1:
            raise ValueError(f"weight: expected a share in 0..1, got {weight}")
        return weight

    @property
    def effective_threshold(self) -> float | None:
        """The score below which ``predict(reject=True)`` rejects: the given one, else selection's;
        None without either.

        Raises:
            ValueError: when it is not a number.
        """
        head = self.head_.name
        if self.threshold is not None:
            return _finite("threshold", self.threshold)
        if self.selection_ is None or head not in self.selection_.rejection:
            return None
        return self.selection_.rejection[head].threshold(self.rejection_rate)

    def decision_function(
        self,
        features: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
        calibration: float | None = None,
    ) -> np.ndarray:
        """Scores [N, K] of the candidates, less the calibration for seen classes.

        The highest is predicted. What a score is depends on the head.

        Args:
            features: raw features [N, F].
            candidates: class indices or names [K], the columns; default `classes_`.
            calibration: used instead of the classifier's own; None uses that.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on bad features or unknown, repeated or no candidates.
        """
        resolved = self.resolve(candidates)
        features = self._checked(features)
        scores = np.empty((len(features), len(resolved)))
        for rows, chunk in self._score_chunks(features, resolved):
            scores[rows] = chunk
        if calibration is None:
            offset = self.effective_calibration
        else:
            offset = _finite("calibration", calibration)
        return scores - offset * np.isin(resolved, self.seen_classes_)

    def predict(
        self,
        features: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
        reject: bool = False,
    ) -> np.ndarray:
        """Class index [N] of every row, among the candidates (see :meth:`decision_function`).

        Features may be a memory map of any size: memory is constant but for the result.

        Args:
            features: raw features [N, F].
            candidates: class indices or names [K]; default `classes_`.
            reject: return :data:`UNKNOWN` (-1) for rows whose highest score, less the calibration,
                is below :attr:`effective_threshold`. Cosine similarities mean the same for any
                candidates; log-probabilities are lower the more classes there are, so that those
                of "softmax" and "ensemble" reject more than `rejection_rate` says where there are
                more candidates than classes held out of a fold.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on bad features, unknown, repeated or no candidates, or
                `reject` without a threshold.
        """
        resolved = self.resolve(candidates)
        features = self._checked(features)
        threshold = self.effective_threshold if reject else None
        if reject and threshold is None:
            raise ValueError(
                "reject: expected a threshold, or a classifier trained with selection on folds; "
                "got neither"
            )
        seen = torch.from_numpy(np.isin(resolved, self.seen_classes_))
        offset = self.effective_calibration * seen.double()
        predictions = np.empty(len(features), dtype=np.int64)
        for rows, scores in self._score_chunks(features, resolved):
            if offset.any():
                scores = scores.double() - offset
            highest, columns = scores.max(dim=1)
            predictions[rows] = resolved[columns.numpy()]
            if threshold is not None:
                predictions[rows][(highest < threshold).numpy()] = UNKNOWN
        return predictions

    def predict_proba(
        self, features: ArrayLike | Tensor, *, candidates: Candidates | None = None
    ) -> np.ndarray:
        """Probabilities [N, K] over the candidates (see :meth:`decision_function`).

        The softmax head's or the ensemble's own; for the nearest class a softmax of similarities
        over the temperature of the losses (the model of MCFA's Eq. 5); for others a softmax of
        their scores. A calibration is included.
        """
        scores = self.decision_function(features, candidates=candidates)
        scores *= self.head_.probability_scale
        return torch.from_numpy(scores).softmax(dim=1).numpy()

    def score(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        candidates: Candidates | None = None,
    ) -> float:
        """Mean per-class top-1 accuracy in 0..1 of :meth:`predict`.

        Images of classes that are not among the candidates count as wrong, and are warned of: those
        of seen classes for task "zsl", say. :mod:`mcfa_fast.model_selection` has what cross-
        validation needs.
        """
        predictions = self.predict(features, candidates=candidates)
        labels = as_labels(labels, len(predictions), len(self.class_names_))
        if foreign := np.setdiff1d(labels, self.resolve(candidates)).tolist():
            warnings.warn(
                f"labels: classes {foreign} are not among the candidates, so that none of their "
                "images can be right; mcfa_fast.model_selection has folds and scores of classes",
                stacklevel=2,
            )
        return mean_class_accuracy(labels, predictions)

    def transductive(
        self,
        features: ArrayLike | Tensor | FeatureRows | None = None,
        labels: ArrayLike | Tensor | None = None,
        *,
        config: TransductionConfig | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> TransductiveClassifier:
        """The classifier for whole sets of images, whose own structure corrects its scores.

        Its methods have the names of this one's and take all images of a set at once (see
        :func:`~mcfa_fast.classifiers.transductive.transduce`).

        Args:
            features: raw features [L, F] of labelled images, best those of :meth:`fit`: how images
                of one class differ among them tells which directions matter, for unseen classes as
                well, and where seen classes are candidates they keep their places.
            labels: class index [L] of every one of them.
            config: strengths. None are those that selection chose for the head with the option
                ``selection.transductive``, else the defaults.
            progress: called as ``progress(done, all)`` with numbers of images.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on bad features or labels.

        Example:
            >>> from mcfa_fast import data
            >>> from mcfa_fast.classifiers import ZeroShotClassifier
            >>> digits = data.load("digits")
            >>> split = digits.split("7/3:0", generalized=False)
            >>> images, labels = digits.features[split.train], digits.labels[split.train]
            >>> classifier = ZeroShotClassifier("eszsl").fit(images, labels, digits.semantics)
            >>> test = digits.features[split.test_unseen], digits.labels[split.test_unseen]
            >>> together = classifier.transductive(images, labels)
            >>> f"{classifier.score(*test):.2f}, together {together.score(*test):.2f}"
            '0.36, together 0.48'
        """
        return TransductiveClassifier(self, labelled_of(features, labels), config, progress)

    def _checked(self, features: ArrayLike | Tensor) -> np.ndarray | NpyFile:
        check_columns(features, getattr(self, "feature_names_in_", None))
        # Values are checked on the way, not in a pass of their own.
        return as_features(features, self.n_features_in_, scan=False)

    def resolve(self, candidates: Candidates | None) -> np.ndarray:
        """Class indices [K] of candidates given as indices or names; `classes_` for None."""
        if candidates is None:
            return self.classes_
        return resolve_candidates(candidates, self.table_.all.numpy(), self.class_names_)

    def _score_chunks(
        self, features: np.ndarray | NpyFile, candidates: np.ndarray
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their uncalibrated scores [n, K], float32."""
        head = self.head_
        wanted = torch.from_numpy(candidates)
        unknown = wanted[~torch.isin(wanted, head.classes)]
        if len(unknown):
            raise ValueError(
                f"candidates: class {int(unknown[0])} is a seen class, which the head "
                f"{head.name!r} of task 'zsl' does not know; use head 'nearest' or train for task "
                "'gzsl'"
            )
        columns = torch.searchsorted(head.classes, wanted)
        is_whole = torch.equal(head.classes, wanted)
        for rows, chunk in read_chunks(features):
            for part in row_parts(len(chunk), len(head.classes)):
                scores = self._head_scores(head, chunk[part])
                found = scores if is_whole else scores[:, columns]
                yield slice(rows.start + part.start, rows.start + part.stop), found

    def _head_scores(self, head: Head, features: Tensor) -> Tensor:
        if isinstance(head, EnsembleHead):
            weight = self.effective_weight
            assert weight is not None  # there is the head
            return head.combined(*head.parts(features), weight)
        return head.scores(features)


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return value
