"""Adding a class to a trained classifier, from its sentences or its descriptor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import ArrayLike

from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.encoders.sentences import SentenceEncoder

__all__ = ["add_class", "alone_with", "replace_saved"]


def add_class(
    classifier: MCFAClassifier,
    name: str,
    description: ArrayLike | list[str],
    *,
    encoder: SentenceEncoder | None = None,
) -> int:
    """Add one class to a fitted classifier; see :meth:`MCFAClassifier.add_classes`.

    Args:
        classifier: changed in place.
        name: name of the class.
        description: its descriptor [A], or with an `encoder` its sentences.
        encoder: what turns sentences into the descriptor.

    Returns:
        The index of the new class.

    Raises:
        ValueError: when the name is taken, or the descriptor is not as wide as those of training or
            not finite.
    """
    if name in classifier.class_names_:
        raise ValueError(f"name: there is a class {name!r} already")
    if encoder is not None:
        description = encoder.describe(description)
    descriptor = np.asarray(description)
    width = classifier.heads_.model.semantic_features
    if descriptor.shape != (width,):
        source = "" if encoder is None else f" by the encoder {encoder.name}"
        raise ValueError(
            f"descriptor of {name!r}: expected {width} values as in training, got "
            f"{list(descriptor.shape)}{source}"
        )
    classifier.add_classes([name], descriptor[None])
    return len(classifier.class_names_) - 1


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Keeps other processes from updating a saved classifier in the meantime; they wait here.

    Nothing is locked when there is no such file.
    """
    if not path.is_file():
        yield
        return
    with FileLock(path.with_name(f"{path.name}.lock")):
        yield


def replace_saved(classifier: MCFAClassifier, path: Path) -> Path:
    """Save a changed classifier over the file it came from, crash-safely.

    Returns:
        The file beside it that keeps what was there before.
    """
    previous = path.with_name(f"{path.stem}.previous{path.suffix}")
    shutil.copyfile(path, previous)
    classifier.save(path)
    return previous
