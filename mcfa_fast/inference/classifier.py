"""Zero-shot classification in the manner of scikit-learn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.config import MCFAConfig
from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.inference.bulk import latent_chunks
from mcfa_fast.inference.fold_calibration import calibrate_on_folds
from mcfa_fast.inference.heads import DEFAULT_WEIGHT, METHODS, ClassifierHeads, Method, Monitor
from mcfa_fast.inference.inputs import (
    TrainingInputs,
    as_class_names,
    as_features,
    as_semantics,
    training_inputs,
)
from mcfa_fast.inference.validation import Validation, validate
from mcfa_fast.inference.zero_shot import Candidates, ZeroShotClassifier
from mcfa_fast.models.mcfa import MCFA
from mcfa_fast.training.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from mcfa_fast.training.trainer import Trainer

__all__ = ["UNKNOWN", "MCFAClassifier"]

UNKNOWN = -1
"""What :meth:`MCFAClassifier.predict` returns for an image that it rejects."""

_SCORES = 2**22  # floats of the scores of a chunk of images
_FORMAT = "mcfa_fast classifier, version 3"
_SAVED = ("method", "calibration", "weight", "rejection_rate", "threshold")


class MCFAClassifier(ZeroShotClassifier):
    """Zero-shot classifier: trains MCFA on seen classes, predicts classes known by description.

    Classes are numbered 0..C-1, by the rows of `semantics`. Fitting trains the two VAEs and both
    classifiers over their latents, so all of `method`, `calibration`, `weight`, `rejection_rate`
    and `threshold` can be changed afterwards with ``set_params``.

    Args:
        config: options of the model, its training and its classifier; None is
            ``MCFAConfig.paper("zsl")``. Its task decides which classes are predicted: the unseen
            ones ("zsl") or all ("gzsl"). ``selection="validation"`` holds out seen classes to
            choose the number of epochs, the ensemble's weight, the scores to reject by and, for
            "gzsl", the calibrations.
        method: "softmax", a linear softmax classifier trained on sampled latents; "nearest", the
            class whose latent mean has the highest cosine similarity (see
            :meth:`mcfa_fast.inference.heads.ClassifierHeads.class_vectors`); or "ensemble", both
            combined (:func:`mcfa_fast.inference.heads.combine`).
        calibration: what is subtracted from the scores of seen classes, in units of the scores
            (calibrated stacking; more favours unseen classes). None is the value chosen by
            ``selection="validation"`` or ``"folds"``, or 0 without.
        weight: share of the nearest class in the ensemble, 0..1. None is the value chosen by
            ``selection="validation"``, or 0.5 without.
        rejection_rate: share, 0..1, of the images of known classes that ``predict(reject=True)``
            may reject; validation's scores turn it into a threshold.
        threshold: the threshold itself, in units of the scores; None is that of `rejection_rate`.
        device: where the VAEs are trained and images encoded.
        run_dir: folder of the training run; a killed run resumes there. None writes nothing.
        progress: show progress bars.

    Attributes:
        classes_: class indices that are predicted by default, ascending; the columns of scores.
        seen_classes_, unseen_classes_: class indices with and without training rows.
        class_names_: name of every class.
        config_: the options that were trained, `epochs` being the chosen number.
        validation_: what validation chose, a :class:`~mcfa_fast.inference.validation.Validation`;
            None without.
        n_features_in_: number of visual features F.
        heads_: the trained model and its classifiers.

    Source:
        Liu et al., Section II-A; calibrated stacking: Chao et al., "An empirical study and analysis
        of generalized zero-shot learning for object recognition in the wild", 2016, Eq. 7.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> config = MCFAConfig.paper("zsl", epochs=1, classifier_epochs=1)
        >>> classifier = MCFAClassifier(config).fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> classifier.classes_.tolist()
        [3, 4, 8]
        >>> classifier.predict_proba(digits.features[:5]).shape
        (5, 3)
    """

    def __init__(
        self,
        config: MCFAConfig | None = None,
        *,
        method: Method = "softmax",
        calibration: float | None = None,
        weight: float | None = None,
        rejection_rate: float = 0.05,
        threshold: float | None = None,
        device: torch.device | str = "cpu",
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        self.config = config
        self.method = method
        self.calibration = calibration
        self.weight = weight
        self.rejection_rate = rejection_rate
        self.threshold = threshold
        self.device = device
        self.run_dir = run_dir
        self.progress = progress

    def fit(
        self,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
    ) -> MCFAClassifier:
        """Train on the images of the seen classes.

        Args:
            features: raw features [n, F], for example a memory-mapped array.
            labels: class index [n] of every row, in 0..C-1.
            semantics: descriptors [C, A], one row per class.
            class_names: C distinct names; default ``class_0``, ``class_1``, ...
            unseen_classes: indices of the classes to predict without training rows; default all
                classes that have none.

        Returns:
            The classifier itself.

        Raises:
            TypeError, ValueError: on arguments of wrong types or shapes, values that are not
                finite, labels out of range, no unseen class, or a `run_dir` of another run.

        With ``selection="test"`` a warning says that the last epoch is kept: this method never sees
        test images. :func:`mcfa_fast.experiment.run` does.
        """
        config = MCFAConfig() if self.config is None else self.config
        _check_config(config)
        inputs = training_inputs(features, labels, semantics, class_names, unseen_classes)
        run_dir = None if self.run_dir is None else Path(self.run_dir)
        training = {"device": self.device, "progress": self.progress}
        validation = None
        if config.selection == "test":
            warnings.warn(
                "selection='test' needs test images, which fit() never sees; "
                "the last epoch is kept",
                stacklevel=2,
            )
        elif config.selection == "validation":
            fold_dir = None if run_dir is None else run_dir / "validation"
            validation = validate(config, *inputs[:3], run_dir=fold_dir, **training)
            config = config.replace(epochs=validation.epochs)
        elif config.selection == "folds" and config.task == "gzsl":
            validation = calibrate_on_folds(config, *inputs[:3], device=self.device)
        model = Trainer(config, *inputs[:3], run_dir=run_dir, **training).fit()
        return self._fit_heads(model, inputs, validation=validation)

    def fit_from_model(
        self,
        model: MCFA,
        features: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
        monitor: Monitor | None = None,
    ) -> MCFAClassifier:
        """Train only the classifiers, over a model that is trained already.

        Args:
            model: trained model; its configuration takes the place of `config`.
            features, labels, semantics, class_names, unseen_classes: see :meth:`fit`.
            monitor: called as ``monitor(epoch, heads)`` after each epoch of the softmax classifier;
                the epoch of highest value is kept. None keeps the last.

        Raises:
            TypeError, ValueError: as :meth:`fit`.
        """
        widths = (model.visual_features, model.semantic_features)
        _check_config(model.config)
        inputs = training_inputs(
            features, labels, semantics, class_names, unseen_classes, widths=widths
        )
        return self._fit_heads(model, inputs, monitor=monitor)

    @property
    def config_(self) -> MCFAConfig:
        check_is_fitted(self)
        return self.heads_.model.config

    @property
    def n_features_in_(self) -> int:
        check_is_fitted(self)
        return self.heads_.model.visual_features

    @property
    def classes_(self) -> np.ndarray:
        check_is_fitted(self)
        return self.heads_.softmax_classes.numpy()

    @property
    def seen_classes_(self) -> np.ndarray:
        check_is_fitted(self)
        return self.heads_.seen_classes.numpy()

    @property
    def unseen_classes_(self) -> np.ndarray:
        check_is_fitted(self)
        return self.heads_.unseen_classes.numpy()

    @property
    def effective_calibration(self) -> float:
        """The calibration in force: the given one, else validation's for the method, else 0."""
        check_is_fitted(self)
        if self.calibration is not None:
            return self.calibration
        chosen = {} if self.validation_ is None else self.validation_.calibration
        if self.method not in chosen:
            return 0.0
        return chosen[self.method] * self.heads_.calibration_unit(self.method)

    @property
    def effective_weight(self) -> float:
        """The ensemble's weight in force: the given one, else validation's, else 0.5."""
        check_is_fitted(self)
        if self.weight is None:
            return DEFAULT_WEIGHT if self.validation_ is None else self.validation_.weight
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight: expected a share in 0..1, got {self.weight}")
        return self.weight

    @property
    def effective_threshold(self) -> float:
        """The score below which ``predict(reject=True)`` rejects: the given one, else validation's.

        Raises:
            ValueError: without either.
        """
        check_is_fitted(self)
        if self.threshold is not None:
            return self.threshold
        if self.validation_ is None:
            raise ValueError(
                "reject: expected a threshold or a classifier trained with selection='validation', "
                "got neither"
            )
        return self.validation_.rejection[self._known_method()].threshold(self.rejection_rate)

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
                more candidates than classes held out for validation.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on bad features, unknown, repeated or no candidates, or
                `reject` without a threshold.
        """
        check_is_fitted(self)
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

        The softmax classifier's or the ensemble's own; for "nearest" a softmax of the similarities
        divided by the temperature of the losses (the model of Eq. 5). A calibration is included.
        """
        scores = self.decision_function(features, candidates=candidates)
        if self.method == "nearest":
            scores = scores / self.config_.temperature
        return torch.from_numpy(scores).softmax(dim=1).numpy()

    def add_classes(self, names: Sequence[str], semantics: ArrayLike | Tensor) -> MCFAClassifier:
        """Add unseen classes after training, from their descriptors alone.

        They get the next class indices. The VAEs stay as they are; the softmax classifier is
        trained anew with the new classes (to the last epoch), the nearest-class index grows.

        Args:
            names: M new class names.
            semantics: descriptors [M, A].

        Returns:
            The classifier itself.

        Raises:
            NotFittedError: before :meth:`fit`.
            TypeError, ValueError: on names that are taken or bad descriptors.
        """
        check_is_fitted(self)
        semantics = as_semantics(semantics, self.heads_.model.semantic_features)
        if isinstance(names, str) or len(names) != len(semantics):
            raise ValueError(f"names: expected {len(semantics)}, one per descriptor, got {names!r}")
        names = (*self.class_names_, *names)
        names = as_class_names(names, len(names))
        self.heads_.add_classes(semantics)
        self.class_names_ = names
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to one file, crash-safely.

        The file holds tensors and plain values only, so that reading it never runs code.
        """
        check_is_fitted(self)
        state = {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in _SAVED},
            "class_names": list(self.class_names_),
            "validation": None if self.validation_ is None else asdict(self.validation_),
            "heads": self.heads_.state(),
        }
        write_checkpoint(Path(path), state)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> MCFAClassifier:
        """Read what :meth:`save` wrote; it predicts exactly the same on the same kind of device.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: when the file is damaged or not a saved classifier.
        """
        try:
            state = read_checkpoint(Path(path))
        except CheckpointError as error:
            raise ValueError(f"{path}: damaged, or not a saved classifier") from error
        if state.get("format") != _FORMAT:
            raise ValueError(f"{path}: expected a file written by MCFAClassifier.save")
        heads = ClassifierHeads.from_state(state["heads"], device)
        classifier = cls(
            heads.model.config,
            **{name: state[name] for name in _SAVED},
            device=device,
        )
        classifier.heads_ = heads
        classifier.class_names_ = tuple(state["class_names"])
        classifier.validation_ = state["validation"] and Validation.from_dict(state["validation"])
        return classifier

    def _known_method(self) -> Method:
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {METHODS}, got {self.method!r}")
        return self.method

    def _checked(self, features: ArrayLike | Tensor) -> np.ndarray:
        # Values are checked on the way, not in a pass of their own.
        return as_features(features, self.n_features_in_, scan=False)

    def _candidate_scores(self, features: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """What :meth:`ClassifierHeads.scores` says, for the method in force."""
        scores = np.empty((len(features), len(candidates)))
        for rows, chunk in self._score_chunks(features, candidates):
            scores[rows] = chunk
        return scores

    def _score_chunks(
        self, features: np.ndarray, candidates: np.ndarray
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their uncalibrated scores [n, K], float32."""
        method, weight, heads = self._known_method(), self.effective_weight, self.heads_
        classes = torch.from_numpy(candidates)
        size = max(1, _SCORES // len(candidates))
        for rows, latents in latent_chunks(heads.model, features):
            for part in row_chunks(len(latents), size):
                scores = heads.scores(latents[part], classes, method, weight)
                yield slice(rows.start + part.start, rows.start + part.stop), scores

    def _fit_heads(
        self,
        model: MCFA,
        inputs: TrainingInputs,
        *,
        monitor: Monitor | None = None,
        validation: Validation | None = None,
    ) -> MCFAClassifier:
        self.heads_ = ClassifierHeads.from_images(
            model,
            inputs.features,
            inputs.labels,
            inputs.semantics,
            inputs.unseen_classes,
            monitor,
        )
        self.class_names_ = inputs.class_names
        self.validation_ = validation
        return self


def _check_config(config: MCFAConfig) -> None:
    if config.task == "gzsl" and config.seen_latents == 0:
        raise ValueError("seen_latents: expected 1 or more for task 'gzsl', got 0")
