"""Results that ought not to be relied on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["ResultWarning", "Warnable", "warnings_of"]

_FEW = (1, 2)
"""So many classes are few, if most images are taken for them."""


class ResultWarning(UserWarning):
    """The category of Python warnings that :func:`warnings_of` gives the sentences for."""


class Warnable(Protocol):
    """What is looked at: an :class:`~mcfa_fast.evaluation.evaluate.Evaluation`, or what was kept of
    one."""

    @property
    def accuracy(self) -> float: ...

    @property
    def chance(self) -> float: ...

    @property
    def generalized(self) -> Any: ...

    @property
    def classes(self) -> Sequence[Any]: ...

    @property
    def confusion(self) -> Any: ...


def warnings_of(result: Warnable) -> tuple[str, ...]:
    """Sentences about accuracies that are no better than guessing, and about one or two classes
    that most images are taken for.

    Every class counts the same, however many test images it has.

    Args:
        result: of one head on one split.

    Returns:
        The sentences, none if there is nothing to say.

    Example:
        >>> from types import SimpleNamespace
        >>> classes = [SimpleNamespace(name=name) for name in ("pond", "port", "park")]
        >>> confusion = [[9, 0, 1], [10, 0, 0], [10, 0, 0]]
        >>> result = SimpleNamespace(
        ...     accuracy=0.3, chance=1 / 3, generalized=None, classes=classes, confusion=confusion
        ... )
        >>> for sentence in warnings_of(result):
        ...     print(sentence)
        ZSL is 30.0%, no better than guessing (33.3%)
        97% of the test images are taken for class 'pond'
    """
    return (*_at_chance(result), *_concentrated(result.confusion, result.classes))


def _at_chance(result: Warnable) -> Iterator[str]:
    found = [("ZSL", result.accuracy, result.chance)]
    if result.generalized is not None:
        values = result.generalized
        found += [("S", values.seen, values.chance), ("U", values.unseen, values.chance)]
    for name, accuracy, chance in found:
        if accuracy <= chance:
            yield f"{name} is {accuracy:.1%}, no better than guessing ({chance:.1%})"


def _concentrated(confusion: ArrayLike, classes: Sequence[Any]) -> Iterator[str]:
    """A sentence if few classes get most images, and twice their share or more."""
    counts = np.asarray(confusion, dtype=np.float64)
    totals = counts.sum(axis=1)
    present = totals > 0
    predicted = (counts[present] / totals[present, None]).mean(axis=0)
    true = present / present.sum()
    order = np.argsort(-predicted, kind="stable")
    for few in _FEW:
        columns = order[:few]
        share = predicted[columns].sum()
        if share > 0.5 and share >= 2 * true[columns].sum():
            names = " and ".join(repr(classes[column].name) for column in columns)
            noun = "class" if few == 1 else "classes"
            yield f"{share:.0%} of the test images are taken for {noun} {names}"
            return
