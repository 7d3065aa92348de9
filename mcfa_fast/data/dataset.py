"""The dataset that everything else works on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from mcfa_fast.data.checks import (
    check_class_names,
    check_features,
    check_labels,
    check_semantics,
)
from mcfa_fast.data.errors import DatasetError
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.npy import NpyFile, file_of
from mcfa_fast.data.splits import ClassSplits, RowSplits, Split, draw_classes

__all__ = ["Dataset", "Split"]

_DRAWN = re.compile(r"(\d+)/(\d+):seed=(\d+)")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Features of N images, their labels, and one descriptor for each of C classes.

    Everything is checked on construction, so that a dataset that exists is usable; only the values
    of features that stay in a file are checked later, when they are first read.

    Attributes:
        name: Name for messages and result tables.
        features: real numbers ``[N, F]``, possibly in a file: an
            :class:`~mcfa_fast.data.npy.NpyFile` or a memory map. All computing is in float32.
        labels: int64 ``[N]`` in ``0..C-1``.
        class_names: C distinct names.
        semantics: float32 ``[C, A]``, the descriptor of every class.
        splits: The named splits, or None. With None, if some classes have no rows, these are the
            unseen ones of one split, which is called ``"S/U:0"``.

    Raises:
        DatasetError: if shapes do not fit together, a value is NaN or infinite, a label has no
            class, or a split is not consistent with the labels.
        TypeError: if ``features`` is neither a numpy array nor an ``NpyFile``.

    >>> import numpy as np
    >>> data = Dataset(
    ...     name="tiny",
    ...     features=np.arange(8.0).reshape(4, 2),
    ...     labels=np.array([0, 1, 1, 2]),
    ...     class_names=("land", "lake", "road"),
    ...     semantics=np.eye(3),
    ... )
    >>> data
    Dataset('tiny': 4 rows, 2 features, 3 classes, 3 semantic features, 0 splits)
    >>> data.split("2/1:seed=0", generalized=False).unseen_classes
    array([0])
    """

    name: str
    features: np.ndarray | NpyFile
    labels: np.ndarray
    class_names: tuple[str, ...]
    semantics: np.ndarray
    splits: ClassSplits | RowSplits | None = None

    def __post_init__(self) -> None:
        class_names = check_class_names(self.class_names)
        check_features(self.features, values=file_of(self.features) is None)
        labels = check_labels(self.labels, len(self.features), len(class_names))
        semantics = check_semantics(self.semantics, len(class_names))
        splits = self.splits or _unseen_without_rows(labels, len(class_names))
        splits = splits and splits.check(labels, class_names)
        for field, value in (
            ("class_names", class_names),
            ("labels", labels),
            ("semantics", semantics),
            ("splits", splits),
        ):
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {self.features.shape[0]} rows, "
            f"{self.features.shape[1]} features, {len(self.class_names)} classes, "
            f"{self.semantics.shape[1]} semantic features, {len(self.split_names)} splits)"
        )

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits that come with the dataset."""
        return self.splits.names if self.splits is not None else ()

    def rows(self, rows: np.ndarray) -> FeatureRows:
        """The features of some rows, as a view: nothing is read from a file."""
        return FeatureRows(self.features, rows, checked=file_of(self.features) is None)

    def split(self, name: str | None = None, *, generalized: bool) -> Split:
        """Return a seen/unseen split.

        Args:
            name: One of :attr:`split_names`; None is the first. ``"S/U:seed=K"`` draws S seen
                and U unseen classes with :func:`~mcfa_fast.data.splits.draw_classes`, from any
                dataset, among the classes that have rows.
            generalized: Whether to test seen classes too.

        Raises:
            DatasetError: if there is no such split, or it lacks what ``generalized`` needs.

        >>> from mcfa_fast.data import load
        >>> split = load("digits").split(generalized=True)
        >>> split.name, len(split.train), len(split.test_seen), len(split.test_unseen)
        ('7/3:0', 944, 315, 538)
        """
        if name is None:
            if not self.split_names:
                raise DatasetError(
                    f"{self.name}: no splits; add a splits.json to the dataset folder or draw "
                    "one with split('S/U:seed=0'), S seen and U unseen classes"
                )
            name = self.split_names[0]
        splits: ClassSplits | RowSplits
        if self.splits is not None and name in self.splits.names:
            splits = self.splits
        elif drawn := _DRAWN.fullmatch(name):
            with_rows = np.unique(self.labels)
            sides = draw_classes(len(with_rows), *map(int, drawn.groups()))
            classes = tuple(with_rows[side] for side in sides)
            partition = self.splits.partition if isinstance(self.splits, ClassSplits) else None
            splits = ClassSplits({name: classes}, partition).check(self.labels, self.class_names)
        else:
            raise DatasetError(
                f"{self.name}: no split {name!r}; there are {', '.join(self.split_names) or 'none'}"
                ", or draw one with 'S/U:seed=K', S seen and U unseen classes"
            )
        return splits.split(name, generalized=generalized, labels=self.labels)


def _unseen_without_rows(labels: np.ndarray, classes: int) -> ClassSplits | None:
    """The split into classes with and without rows; None if all have some."""
    seen = np.unique(labels)
    unseen = np.setdiff1d(np.arange(classes), seen)
    return ClassSplits({f"{len(seen)}/{len(unseen)}:0": (seen, unseen)}) if unseen.size else None
