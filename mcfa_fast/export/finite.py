"""Scores that are numbers, or an error that says why they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.classifiers.heads.base import FAR
from mcfa_fast.systems.base import Embeds

__all__ = ["probabilities", "scores"]


def probabilities(
    classifier: ZeroShotClassifier, features: np.ndarray, *, first_row: int = 0
) -> np.ndarray:
    """Probabilities [N, K] of the classifier's classes, all of them finite.

    Args:
        classifier: a fitted classifier.
        features: raw features [N, F], finite in float32.
        first_row: number of the first row in an error, where `features` is a part of more.

    Raises:
        ValueError: when a probability is not finite; it names the row and the cause.
    """
    return _finite(classifier, classifier.predict_proba, features, first_row)


def scores(classifier: ZeroShotClassifier, features: np.ndarray) -> np.ndarray:
    """Scores [N, K] of the classifier's classes, all of them finite.

    Raises:
        ValueError: as :func:`probabilities`.
    """
    return _finite(classifier, classifier.decision_function, features, 0)


def _finite(
    classifier: ZeroShotClassifier,
    compute: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    first_row: int,
) -> np.ndarray:
    try:
        found = compute(features)
    except ValueError:
        # The search for the nearest class takes no embeddings that are not finite.
        system = classifier.system_
        if not isinstance(system, Embeds):
            raise
        found = system.embed(torch.from_numpy(features)).numpy()
        if np.isfinite(found).all():
            raise
    finite = np.isfinite(found).all(axis=1)
    if finite.all():
        return found
    row = int(finite.argmin())
    cause = _cause(classifier, features[row])
    raise ValueError(f"the scores of row {first_row + row} are not finite: {cause}")


def _cause(classifier: ZeroShotClassifier, features: np.ndarray) -> str:
    """Why the scores of finite features [F] are not finite."""
    sizes = classifier.table_.sizes
    far = torch.nonzero(sizes > FAR).flatten()
    if len(far):
        name = classifier.class_names_[int(far[0])]
        return (
            f"the descriptor of class {name!r} has values {sizes[far[0]]:.3g} times as large as "
            "those of training"
        )
    owners = {classifier.system_.name: classifier.system_.state_dict()}
    owners |= {name: head.state_dict() for name, head in classifier.heads_.items()}
    for owner, state in owners.items():
        for name, values in _tensors(state):
            if values.is_floating_point() and not torch.isfinite(values).all():
                return f"{owner}: its trained state ({name}) holds NaN or infinity"
    largest = float(np.abs(features).max())
    return f"values of features as large as {largest:.3g} are too much for {classifier.run_.system}"


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
