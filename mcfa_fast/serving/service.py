"""The classifier behind the HTTP service, used and replaced by many threads."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.export.finite import probabilities
from mcfa_fast.export.update import add_class, alone_with, replace_saved

__all__ = ["Service"]


@dataclass(frozen=True)
class _Snapshot:
    """A classifier that nobody changes any more, once per head."""

    classifier: ZeroShotClassifier
    by_head: dict[str, ZeroShotClassifier]

    @classmethod
    def of(cls, classifier: ZeroShotClassifier) -> _Snapshot:
        by_head = {name: classifier.with_head(name) for name in classifier.heads_}
        row = np.zeros((1, classifier.n_features_in_), dtype=np.float32)
        for name, view in by_head.items():
            if name != classifier.head_.name:
                view.calibration = None  # one given is in units of the other head's scores
            probabilities(view, row)  # builds what is built on first use
        return cls(classifier, by_head)


class Service:
    """Classifies, and takes in new classes, from any number of threads at once.

    A request works with one snapshot of the classifier from its start to its end. A new class is
    added to a copy, which then takes the place of the snapshot in one step.

    Args:
        classifier: a fitted classifier. The head that answers is the default of requests; a
            calibration that it was given applies to this head alone. It is not changed.
        encoder: what turns sentences into descriptors, if they are to be accepted.
        path: a file of the classifier to keep up to date; None keeps new classes in memory only.
        max_classes: how many classes there may be.

    Raises:
        NotFittedError: before the classifier was fitted.
        ValueError: when its scores are not finite.
    """

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        *,
        encoder: SentenceEncoder | None = None,
        path: Path | None = None,
        max_classes: int = 1_000,
    ) -> None:
        check_is_fitted(classifier, "fitted_")
        self.system: str = classifier.run_.system
        self.heads: tuple[str, ...] = tuple(classifier.heads_)
        self.default_head: str = classifier.head_.name
        self.features = classifier.n_features_in_
        self.semantic_features = classifier.system_.semantic_features
        self.encoder = encoder
        self._path = path
        self._max_classes = max_classes
        self._adding = threading.Lock()
        self._snapshot = _Snapshot.of(copy.copy(classifier))

    def classify(self, features: np.ndarray, head: str | None, top: int) -> dict[str, Any]:
        """The `top` best classes of every row and their probabilities, best first.

        Raises:
            ValueError: when scores are not finite.
        """
        head = head or self.default_head
        classifier = self._snapshot.by_head[head]
        scores = probabilities(classifier, features)
        columns = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        names = np.array([classifier.class_names_[index] for index in classifier.classes_], object)
        return {
            "head": head,
            "classes": names[columns].tolist(),
            "scores": np.take_along_axis(scores, columns, axis=1).tolist(),
        }

    def classes(self) -> list[dict[str, Any]]:
        """The classes that are told apart."""
        classifier = self._snapshot.classifier
        seen = set(classifier.seen_classes_.tolist())
        return [
            {"index": index, "name": classifier.class_names_[index], "seen": index in seen}
            for index in classifier.classes_.tolist()
        ]

    def add_class(
        self, name: str, description: list[float] | list[str], *, sentences: bool = False
    ) -> int:
        """Add a class; requests go on with the classes so far until it is there.

        Args:
            name: its name.
            description: its descriptor or, with `sentences`, those for the encoder.
            sentences: which of the two.

        Returns:
            Its index.

        Raises:
            FileExistsError: when the name is taken, there are too many classes, or the file to keep
                up to date was given other classes by somebody else.
            ValueError: on a bad name or description.
        """
        with self._adding:
            current = self._snapshot.classifier
            if name in current.class_names_:
                raise FileExistsError(f"name: there is a class {name!r} already")
            if len(current.class_names_) >= self._max_classes:
                raise FileExistsError(f"there are {self._max_classes} classes, the most allowed")
            changed = copy.copy(current)
            encoder = self.encoder if sentences else None
            index = add_class(changed, name, description, encoder=encoder)
            snapshot = _Snapshot.of(changed)
            if self._path is not None:
                _save(changed, current.class_names_, self._path)
            self._snapshot = snapshot
            return index


def _save(changed: ZeroShotClassifier, names: tuple[str, ...], path: Path) -> None:
    """Replace a saved classifier by one with more classes than `names`; its head and calibration
    stay as they were saved, whatever this service was started with."""
    with alone_with(path):
        saved = ZeroShotClassifier.load(path)
        if saved.class_names_ != names:
            raise FileExistsError(
                "the saved classifier was given other classes since the service was started"
            )
        saved.fitted_, saved.class_names_ = changed.fitted_, changed.class_names_
        replace_saved(saved, path)
