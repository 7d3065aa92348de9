"""The classifier behind the HTTP service, used and replaced by many threads."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mcfa_fast.export.update import add_class, replace_saved
from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.classifiers.heads_old import METHODS, ClassifierHeads, Method
from mcfa_fast.encoders.sentences import SentenceEncoder

__all__ = ["Service"]


@dataclass(frozen=True)
class _Snapshot:
    """A classifier that nobody changes any more, once per method."""

    by_method: dict[Method, MCFAClassifier]

    @classmethod
    def of(cls, classifier: MCFAClassifier) -> _Snapshot:
        by_method = {name: copy.copy(classifier).set_params(method=name) for name in METHODS}
        row = np.zeros((1, classifier.n_features_in_), dtype=np.float32)
        for one in by_method.values():
            one.predict_proba(row)  # builds what is built on first use
        return cls(by_method)


class Service:
    """Classifies, and takes in new classes, from any number of threads at once.

    A request works with one snapshot of the classifier from its start to its end. A new class is
    added to a copy, which then takes the place of the snapshot in one step.

    Args:
        classifier: a fitted classifier; its `method` is the default of requests. It is not changed.
        encoder: what turns sentences into descriptors, if they are to be accepted.
        path: a file of the classifier to keep up to date; None keeps new classes in memory only.
        max_classes: how many classes there may be.

    Raises:
        NotFittedError: before the classifier was fitted.
    """

    def __init__(
        self,
        classifier: MCFAClassifier,
        *,
        encoder: SentenceEncoder | None = None,
        path: Path | None = None,
        max_classes: int = 1_000,
    ) -> None:
        check_is_fitted(classifier)
        self.default_method: Method = classifier.method
        self.features = classifier.n_features_in_
        self.encoder = encoder
        self._path = path
        self._max_classes = max_classes
        self._adding = threading.Lock()
        self._snapshot = _Snapshot.of(classifier)

    def classify(self, features: np.ndarray, method: Method | None, top: int) -> dict[str, Any]:
        """The `top` best classes of every row and their probabilities, best first."""
        method = method or self.default_method
        classifier = self._snapshot.by_method[method]
        scores = classifier.predict_proba(features)
        columns = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        names = np.array([classifier.class_names_[index] for index in classifier.classes_], object)
        return {
            "method": method,
            "classes": names[columns].tolist(),
            "scores": np.take_along_axis(scores, columns, axis=1).tolist(),
        }

    def classes(self) -> list[dict[str, Any]]:
        """The classes that are told apart."""
        classifier = self._snapshot.by_method[self.default_method]
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
            FileExistsError: when the name is taken or there are too many classes.
            ValueError: on a bad description.
        """
        with self._adding:
            current = self._snapshot.by_method[self.default_method]
            if name in current.class_names_:
                raise FileExistsError(f"name: there is a class {name!r} already")
            if len(current.class_names_) >= self._max_classes:
                raise FileExistsError(f"there are {self._max_classes} classes, the most allowed")
            changed = copy.copy(current)
            changed.heads_ = ClassifierHeads.from_state(current.heads_.state(), current.device)
            encoder = self.encoder if sentences else None
            index = add_class(changed, name, description, encoder=encoder)
            snapshot = _Snapshot.of(changed)
            if self._path is not None:
                replace_saved(changed, self._path)
            self._snapshot = snapshot
            return index
