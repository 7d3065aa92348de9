"""Adding a class to a trained classifier, from its sentences or its descriptor."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock
from numpy.typing import ArrayLike

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.export.finite import scores
from mcfa_fast.storage import write_atomically

__all__ = ["CONTROL_CHARACTERS", "add_class", "alone_with", "replace_saved"]

CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no name of an added class may have: such text steers terminals and breaks lines of logs."""


def add_class(
    classifier: ZeroShotClassifier,
    name: str,
    description: ArrayLike | list[str],
    *,
    encoder: SentenceEncoder | None = None,
) -> int:
    """Add one class to a fitted classifier; see :meth:`ZeroShotClassifier.add_classes`.

    Args:
        classifier: changed in place.
        name: name of the class.
        description: its descriptor [A], or with an `encoder` its sentences.
        encoder: what turns sentences into the descriptor.

    Returns:
        The index of the new class.

    Raises:
        ValueError: when the name is taken, the descriptor is not as wide as those of training, not
            finite or far larger, or scores were not finite any more; nothing is changed then.
    """
    if CONTROL_CHARACTERS.search(name):
        raise ValueError(f"name: expected no control characters, got {name!r}")
    if name in classifier.class_names_:
        raise ValueError(f"name: there is a class {name!r} already")
    if encoder is not None:
        description = encoder.describe(cast("Sequence[str]", description))
    descriptor = np.asarray(description)
    width = classifier.system_.semantic_features
    if descriptor.shape != (width,):
        source = "" if encoder is None else f" by the encoder {encoder.name}"
        raise ValueError(
            f"descriptor of {name!r}: expected {width} values as in training, got "
            f"{list(descriptor.shape)}{source}"
        )
    changed = copy.copy(classifier).add_classes([name], descriptor[None])
    for head in changed.heads_:
        scores(changed.with_head(head), np.zeros((1, changed.n_features_in_), np.float32))
    classifier.fitted_, classifier.class_names_ = changed.fitted_, changed.class_names_
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


def replace_saved(classifier: ZeroShotClassifier, path: Path) -> Path:
    """Save a changed classifier over the file it came from, crash-safely.

    Returns:
        The file beside it that keeps what was there before.
    """
    previous = path.with_name(f"{path.stem}.previous{path.suffix}")
    with path.open("rb") as saved:
        write_atomically(previous, lambda file: shutil.copyfileobj(saved, file))
    classifier.save(path)
    return previous
