"""Zero-shot classification in the manner of scikit-learn, over every system."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.fitted import Fitted, fit_heads
from mcfa_fast.classifiers.heads import ClassTable, Head
from mcfa_fast.classifiers.heads.base import Monitor
from mcfa_fast.classifiers.reading import read_chunks, row_parts
from mcfa_fast.classifiers.selecting import select
from mcfa_fast.classifiers.state import read_classifier, write_classifier
from mcfa_fast.data.inputs import (
    as_class_names,
    as_features,
    as_labels,
    as_semantics,
    resolve_candidates,
    training_data,
)
from mcfa_fast.evaluation.metrics import mean_class_accuracy
from mcfa_fast.selection.result import Selection
from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.fit import fit
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.registry import RECOMMENDED, find

__all__ = ["UNKNOWN", "Candidates", "MCFAClassifier", "ZeroShotClassifier"]

Candidates = Sequence["int | str"] | np.ndarray

UNKNOWN = -1
"""What :meth:`ZeroShotClassifier.predict` returns for an image that it rejects."""


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):
    """Zero-shot classifier: trains a system on seen classes, predicts classes known by description.

    Classes are numbered 0..C-1, by the rows of `semantics`. Fitting chooses inside the seen classes
    what is to be chosen, trains the system and fits all its heads, so that `head`, `calibration`,
    `weight`, `rejection_rate` and `threshold` can be changed afterwards with ``set_params``.

    Args:
        system: name of a system, its options (:class:`~mcfa_fast.systems.base.SystemConfig`), or a
            whole :class:`~mcfa_fast.classifiers.config.RunConfig`, which says its task and preset.
        task: "zsl" predicts among the unseen classes by default, "gzsl" among all.
        preset: of the system; None is its first.
        head: which head answers: "scores", "softmax", "nearest" or "ensemble", as the system has
            them; None is the preset's.
        options: changes of options, see :meth:`~mcfa_fast.classifiers.config.RunConfig.replace`.
        seed: seed of every random stream; None is that of the options, 0 by default.
        calibration: what is subtracted from the scores of seen classes, in units of the scores
            (calibrated stacking; more favours unseen classes). None is the value that selection
            chose, or 0 without.
        weight: share of the nearest class in the ensemble, 0..1. None is the value that selection
            chose, or that of its options without.
        rejection_rate: share, 0..1, of the images of known classes that ``predict(reject=True)``
            may reject; scores of held-out classes turn it into a threshold.
        threshold: the threshold itself, in units of the scores; None is that of `rejection_rate`.
        device: where the system computes.
        run_dir: folder of the training run; a killed run resumes there. None writes nothing.
        progress: show progress bars.

    Attributes:
        classes_: class indices that are predicted by default, ascending; the columns of scores.
        seen_classes_, unseen_classes_: class indices with and without training rows.
        class_names_: name of every class.
        run_: the :class:`~mcfa_fast.classifiers.config.RunConfig` as it was trained.
        selection_: what was chosen, a :class:`~mcfa_fast.selection.result.Selection`; None without.
        system_: the trained system.
        heads_: its heads, by name.
        n_features_in_: number of visual features F.

    Source:
        Calibrated stacking: Chao et al., "An empirical study and analysis of generalized zero-shot
        learning for object recognition in the wild", 2016, Eq. 7.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> classifier = ZeroShotClassifier("eszsl").fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> classifier.classes_.tolist()
        [3, 4, 8]
        >>> classifier.predict_proba(digits.features[:5]).shape
        (5, 3)
    """

    _DEFAULT: ClassVar[str] = RECOMMENDED

    def __init__(
        self,
        system: str | SystemConfig | RunConfig | None = None,
        *,
        task: Task = "zsl",
        preset: str | None = None,
        head: str | None = None,
        options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        calibration: float | None = None,
        weight: float | None = None,
        rejection_rate: float = 0.05,
        threshold: float | None = None,
        device: torch.device | str = "cpu",
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        self.system = system
        self.task = task
        self.preset = preset
        self.head = head
        self.options = options
        self.seed = seed
        self.calibration = calibration
        self.weight = weight
        self.rejection_rate = rejection_rate
        self.threshold = threshold
        self.device = device
        self.run_dir = run_dir
        self.progress = progress

    def run_config(self) -> RunConfig:
        """What :meth:`fit` will do, by the present parameters.

        Raises:
            ValueError: on an unknown name, or an option out of its bounds.
        """
        if isinstance(self.system, RunConfig):
            run = self.system.replace(self.options) if self.options else self.system
            return run.with_arguments(head=self.head, seed=self.seed)
        run = RunConfig.of(
            self._DEFAULT if self.system is None else self.system,
            task=self.task,
            preset=self.preset,
            head=self.head,
            options=self.options,
        )
        return run.with_arguments(seed=self.seed)

    def fit(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
        monitor: Monitor | None = None,
    ) -> ZeroShotClassifier:
        """Train on the images of the seen classes.

        Args:
            features: raw features [n, F], for example
                :class:`~mcfa_fast.data.features.FeatureRows` of a memory-mapped file.
            labels: class index [n] of every row, in 0..C-1.
            semantics: descriptors [C, A], one row per class.
            class_names: C distinct names; default ``class_0``, ``class_1``, ...
            unseen_classes: indices of the classes to predict without training rows; default all
                classes that have none.
            monitor: called as ``monitor(epoch, head)`` after each epoch of the softmax head; the
                epoch of highest value is kept. None keeps the last.

        Returns:
            The classifier itself.

        Raises:
            TypeError, ValueError: on arguments of wrong types or shapes, values that are not
                finite, labels out of range, no unseen class, or a `run_dir` of another run.
        """
        run = self.run_config()
        data = training_data(features, labels, semantics, class_names, unseen_classes)
        run_dir = None if self.run_dir is None else Path(self.run_dir)
        run, selection = select(
            run, data, device=self.device, run_dir=run_dir, fixed=self.options or {}
        )
        widths = data.features.width, data.semantics.shape[1]
        system = find(run.system).system(run.options, *widths, device=self.device)
        self.history_ = fit(system, data, run_dir=run_dir, progress=self.progress)
        return self._take(run, selection, fit_heads(run, system, data, monitor), data.class_names)

    def fit_heads(
        self,
        system: System,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
        monitor: Monitor | None = None,
    ) -> ZeroShotClassifier:
        """Fit only the heads, over a system that is trained already; nothing is selected.

        Args:
            system: trained; its options take the place of the classifier's.
            features, labels, semantics, class_names, unseen_classes, monitor: see :meth:`fit`.

        Raises:
            TypeError, ValueError: as :meth:`fit`.
        """
        widths = (system.visual_features, system.semantic_features)
        data = training_data(
            features, labels, semantics, class_names, unseen_classes, widths=widths
        )
        run = self.run_config()
        if system.name != run.system:
            raise ValueError(f"system: expected a trained {run.system}, got {system.name}")
        run = run.model_copy(update={"options": system.config})
        return self._take(run, None, fit_heads(run, system, data, monitor), data.class_names)

    @property
    def system_(self) -> System:
        check_is_fitted(self, "fitted_")
        return self.fitted_.system

    @property
    def heads_(self) -> Mapping[str, Head]:
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
        return self.system_.visual_features

    @property
    def classes_(self) -> np.ndarray:
        table = self.table_
        return (table.unseen if self.run_.task == "zsl" else table.all).numpy()

    @property
    def seen_classes_(self) -> np.ndarray:
        return self.table_.seen.numpy()

    @property
    def unseen_classes_(self) -> np.ndarray:
        return self.table_.unseen.numpy()

    @property
    def effective_calibration(self) -> float:
        """The calibration in force: the given one, else selection's for the head, else 0."""
        head = self.head_
        if self.calibration is not None:
            return self.calibration
        chosen = {} if self.selection_ is None else self.selection_.calibration
        return chosen.get(head.name, 0.0) * head.calibration_unit

    @property
    def effective_weight(self) -> float:
        """The ensemble's weight in force: the given one, else selection's, else its options'.

        Raises:
            ValueError: when it is not a share in 0..1, or the system has no ensemble.
        """
        if "ensemble" not in self.heads_:
            raise ValueError(f"weight: {self.run_.system} has no head 'ensemble'")
        weight = self.weight
        if weight is None and self.selection_ is not None:
            weight = self.selection_.weight
        if weight is None:
            weight = self.heads_["ensemble"].options.weight
        if not 0 <= weight <= 1:
            raise ValueError(f"weight: expected a share in 0..1, got {weight}")
        return weight

    @property
    def effective_threshold(self) -> float:
        """The score below which ``predict(reject=True)`` rejects: the given one, else selection's.

        Raises:
            ValueError: without either.
        """
        head = self.head_.name
        if self.threshold is not None:
            return self.threshold
        if self.selection_ is None or head not in self.selection_.rejection:
            raise ValueError(
                "reject: expected a threshold, or a classifier trained with selection on folds; "
                "got neither"
            )
        return self.selection_.rejection[head].threshold(self.rejection_rate)

    def with_head(self, head: str) -> ZeroShotClassifier:
        """This classifier with another head that answers: a view, which shares all that was fitted.

        Raises:
            ValueError: when the system has no such head.
        """
        view = copy.copy(self)
        view.head = head
        if hasattr(self, "fitted_"):
            _ = view.head_
        return view

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
        resolved = self._resolve(candidates)
        features = self._checked(features)
        scores = np.empty((len(features), len(resolved)))
        for rows, chunk in self._score_chunks(features, resolved):
            scores[rows] = chunk
        offset = self.effective_calibration if calibration is None else calibration
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
        resolved = self._resolve(candidates)
        features = self._checked(features)
        threshold = self.effective_threshold if reject else None
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
        """Mean per-class top-1 accuracy in 0..1 of :meth:`predict`."""
        predictions = self.predict(features, candidates=candidates)
        labels = as_labels(labels, len(predictions), len(self.class_names_))
        return mean_class_accuracy(labels, predictions)

    def add_classes(
        self, names: Sequence[str], semantics: ArrayLike | Tensor
    ) -> ZeroShotClassifier:
        """Add unseen classes after training, from their descriptors alone.

        They get the next class indices. The system stays as it is; heads are fitted anew.

        Args:
            names: M new class names.
            semantics: descriptors [M, A].

        Returns:
            The classifier itself.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on names that are taken or bad descriptors.
        """
        semantics = as_semantics(semantics, self.system_.semantic_features)
        if isinstance(names, str) or len(names) != len(semantics):
            raise ValueError(f"names: expected {len(semantics)}, one per descriptor, got {names!r}")
        names = (*self.class_names_, *names)
        names = as_class_names(names, len(names))
        self.fitted_ = self.fitted_.with_classes(semantics)
        self.class_names_ = names
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to one file, crash-safely.

        The file holds tensors and plain values only, so that reading it never runs code.
        """
        check_is_fitted(self, "fitted_")
        write_classifier(Path(path), self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> ZeroShotClassifier:
        """Read what :meth:`save` wrote; it predicts exactly the same on the same kind of device.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: when the file is damaged or not a saved classifier.
        """
        return read_classifier(cls, Path(path), device)

    def _checked(self, features: ArrayLike | Tensor) -> np.ndarray:
        # Values are checked on the way, not in a pass of their own.
        return as_features(features, self.n_features_in_, scan=False)

    def _resolve(self, candidates: Candidates | None) -> np.ndarray:
        if candidates is None:
            return self.classes_
        return resolve_candidates(candidates, self.table_.all.numpy(), self.class_names_)

    def _score_chunks(self, features: np.ndarray, candidates: np.ndarray) -> Any:
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
        if head.name == "ensemble":
            return head.combined(*head.parts(features), self.effective_weight)
        return head.scores(features)

    def _take(
        self,
        run: RunConfig,
        selection: Selection | None,
        fitted: Fitted,
        class_names: tuple[str, ...],
    ) -> ZeroShotClassifier:
        self.run_, self.selection_, self.fitted_ = run, selection, fitted
        self.class_names_ = class_names
        return self


class MCFAClassifier(ZeroShotClassifier):
    """The zero-shot classifier of MCFA: :class:`ZeroShotClassifier` with ``system="mcfa"``.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.systems.mcfa import MCFAConfig
        >>> digits = data.load("digits")
        >>> rows = digits.split("7/3:0", generalized=False).train
        >>> config = MCFAConfig.paper("zsl", epochs=1)
        >>> classifier = MCFAClassifier(config, options={"softmax.epochs": 1}).fit(
        ...     digits.features[rows], digits.labels[rows], digits.semantics
        ... )
        >>> classifier.predict_proba(digits.features[:5]).shape
        (5, 3)
    """

    _DEFAULT = "mcfa"
