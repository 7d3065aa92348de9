"""Zero-shot classification in the manner of scikit-learn, over every system."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.fitted import Fitted, fit_heads
from mcfa_fast.classifiers.heads.base import FAR, Monitor
from mcfa_fast.classifiers.prediction import PredictionMixin
from mcfa_fast.classifiers.selecting import select
from mcfa_fast.classifiers.state import read_classifier, write_classifier
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import as_class_names, as_semantics, column_names, training_data
from mcfa_fast.selection.result import Selection
from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.fit import fit
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.registry import RECOMMENDED, find

__all__ = ["MCFAClassifier", "ZeroShotClassifier"]

_PREFIX = "system__"


class ZeroShotClassifier(PredictionMixin, BaseEstimator):
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
        feature_names_in_: names of the columns, where `fit` was given a data frame; other frames
            must have the same columns in the same order.

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

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with ``deep``, all options of the run as ``system__OPTION``.

        A dot in an option's name is a double underscore here: ``system__softmax__epochs``.
        """
        found: dict[str, Any] = super().get_params(deep=False)
        if deep:
            options = self.run_config().names
            found |= {_PREFIX + name.replace(".", "__"): value for name, value in options.items()}
        return found

    def set_params(self, **params: Any) -> ZeroShotClassifier:
        """Change parameters; ``system__OPTION`` is a change of :attr:`options`, as grids have it.

        Raises:
            ValueError: On an unknown name, or an option out of its bounds.

        Example:
            >>> classifier = ZeroShotClassifier("eszsl").set_params(system__visual_penalty=3.0)
            >>> classifier.options
            {'visual_penalty': 3.0}
        """
        changes = {name: value for name, value in params.items() if name.startswith(_PREFIX)}
        super().set_params(**{name: value for name, value in params.items() if name not in changes})
        if changes:
            own = {n.removeprefix(_PREFIX).replace("__", "."): v for n, v in changes.items()}
            self.options = {**(self.options or {}), **own}
            self.run_config()
        return self

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
        features: ArrayLike | Tensor | FeatureRows,
        labels: ArrayLike | Tensor,
        semantics: ArrayLike | Tensor,
        *,
        class_names: Sequence[str] | None = None,
        unseen_classes: ArrayLike | None = None,
        monitor: Monitor | None = None,
        group: dist.ProcessGroup | None = None,
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
            group: processes that train together, each calling this with the same arguments; None is
                this one alone. Every one ends up with the classifier that one process would get, up
                to rounding; rank 0 alone writes into `run_dir`.

        Returns:
            The classifier itself.

        Raises:
            TypeError, ValueError: on arguments of wrong types or shapes, values that are not
                finite, labels out of range, no unseen class, or a `run_dir` of another run.
            RankError: when another process of the group ends or does not answer.
        """
        run = self.run_config()
        if run.selection.rule == "test" and monitor is None:
            warnings.warn(
                "selection: rule 'test' needs a monitor that looks at test images; without one the "
                "last epoch is kept",
                stacklevel=2,
            )
        data = training_data(features, labels, semantics, class_names, unseen_classes)
        run_dir = None if self.run_dir is None else Path(self.run_dir)
        run, selection = select(
            run,
            data,
            device=self.device,
            run_dir=run_dir,
            fixed=self.options or {},
            group=group,
        )
        widths = data.features.width, data.semantics.shape[1]
        system = find(run.system).system(run.options, *widths, device=self.device)
        self.history_ = fit(system, data, run_dir=run_dir, progress=self.progress, group=group)
        fitted = fit_heads(run, system, data, monitor)
        return self._take(run, selection, fitted, data.class_names, column_names(features))

    def fit_heads(
        self,
        system: System,
        features: ArrayLike | Tensor | FeatureRows,
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
        fitted = fit_heads(run, system, data, monitor)
        return self._take(run, None, fitted, data.class_names, column_names(features))

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
        sizes = self.table_.add(semantics).sizes[-len(semantics) :]
        for name, size in zip(names[-len(semantics) :], sizes.tolist(), strict=True):
            if size > FAR:
                raise ValueError(
                    f"descriptor of {name!r}: its values are up to {size:.3g} times as large as "
                    "those of training; expected one on the same scale"
                )
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

    def _take(
        self,
        run: RunConfig,
        selection: Selection | None,
        fitted: Fitted,
        class_names: tuple[str, ...],
        feature_names: tuple[str, ...] | None,
    ) -> ZeroShotClassifier:
        self.run_, self.selection_, self.fitted_ = run, selection, fitted
        self.class_names_ = class_names
        self.take_feature_names(feature_names)
        return self

    def take_feature_names(self, names: Sequence[str] | None) -> None:
        """Expect features with columns of these names from now on; None expects no names."""
        self.__dict__.pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)


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
