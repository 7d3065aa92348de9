"""Seen/unseen splits: which classes and which rows are for training and for testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcfa_fast.data.checks import check_indices, describe_classes
from mcfa_fast.data.errors import DatasetError

_TRAIN_SHARE = 0.75
_NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """One seen/unseen split of a dataset, as row numbers of its features.

    Rows are in ascending order, or in the order of the files that give them row by row.

    Attributes:
        name: Name of the split in its dataset, for example ``"20/10:0"``.
        generalized: Whether seen classes are tested too (generalized zero-shot learning).
        seen_classes: int64 ``[n_seen]``, sorted classes that are seen in training.
        unseen_classes: int64 ``[n_unseen]``, sorted classes that are only tested.
        train: int64, training rows, all of seen classes.
        test_seen: int64, test rows of seen classes; empty when not generalized.
        test_unseen: int64, test rows of unseen classes, which need not all have some.
    """

    name: str
    generalized: bool
    seen_classes: np.ndarray
    unseen_classes: np.ndarray
    train: np.ndarray
    test_seen: np.ndarray
    test_unseen: np.ndarray

    def check_testable(self) -> None:
        """Raise a DatasetError if no unseen class has a row to test on."""
        if not self.test_unseen.size:
            raise DatasetError(
                f"split {self.name!r}: none of its {len(self.unseen_classes)} unseen classes has "
                "test rows, so their accuracy cannot be computed"
            )


class Rows(NamedTuple):
    """Row numbers of one split given row by row; ``test_seen`` is for generalized ones only."""

    train: np.ndarray
    test_unseen: np.ndarray
    test_seen: np.ndarray = _NO_ROWS


def draw_classes(classes: int, seen: int, unseen: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw seen and unseen classes at random.

    ``p = numpy.random.default_rng(1000 * seen + seed).permutation(classes)``; the first ``seen``
    entries are the seen classes, the next ``unseen`` the unseen ones, each sorted.

    Raises:
        DatasetError: if there are too few classes, or none on one side.

    >>> draw_classes(10, 7, 3, seed=0)
    (array([0, 1, 2, 5, 6, 7, 9]), array([3, 4, 8]))
    """
    if seen < 1 or unseen < 1 or seen + unseen > classes:
        raise DatasetError(
            f"split: expected at least one seen and one unseen class and at most {classes} "
            f"together, got {seen}/{unseen}"
        )
    order = np.random.default_rng(1000 * seen + seed).permutation(classes)
    return np.sort(order[:seen]), np.sort(order[seen : seen + unseen])


def partition_rows(rows: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide the rows of one class 75/25 into training and test rows.

    ``p = numpy.random.default_rng(7500 + label).permutation(rows)``; the first
    ``round(0.75 * len(rows))`` are training rows and the rest test rows, each sorted. At least
    one row stays on both sides; a single row is for training.

    >>> partition_rows(np.arange(8), label=3)
    (array([0, 1, 3, 4, 6, 7]), array([2, 5]))
    """
    order = np.random.default_rng(7500 + label).permutation(rows)
    cut = max(1, min(round(_TRAIN_SHARE * len(rows)), len(rows) - 1))
    return np.sort(order[:cut]), np.sort(order[cut:])


@dataclass(frozen=True, eq=False)
class ClassSplits:
    """Splits given by classes, with one partition of every class's rows for generalized runs.

    Conventional splits train on all rows of the seen classes and test on all rows of the unseen
    classes. Generalized splits train on the partition's training rows of the seen classes, and
    test on its test rows and on all rows of the unseen classes. Unseen classes need no rows.

    Attributes:
        classes: Split name to (seen classes, unseen classes).
        partition: Class to (training rows, test rows), for every class that generalized splits
            see; None divides every class with :func:`partition_rows`.
    """

    classes: Mapping[str, tuple[np.ndarray, np.ndarray]]
    partition: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.classes)

    def check(self, labels: np.ndarray, class_names: Sequence[str]) -> ClassSplits:
        """Return a checked copy for rows with these ``labels [N]``.

        Raises:
            DatasetError: if classes or rows are out of range or repeated, a class is both seen
                and unseen or is seen and has no rows, or the partition mixes classes, training
                and test.
        """
        counts = np.bincount(labels, minlength=len(class_names))
        classes = {}
        for name, (seen, unseen) in self.classes.items():
            seen = np.sort(check_indices(seen, f"split {name!r}, seen classes", len(counts)))
            unseen = np.sort(check_indices(unseen, f"split {name!r}, unseen classes", len(counts)))
            _check_sides(name, seen, unseen, class_names)
            empty = [c for c in seen if not counts[c]]
            if empty:
                raise DatasetError(
                    f"split {name!r}: no rows of seen class {describe_classes(empty, class_names)}"
                )
            classes[name] = (seen, unseen)
        if self.partition is None:
            return ClassSplits(classes)
        check_indices(list(self.partition), "classes of the partition", len(counts))
        partition = {}
        for label, parts in self.partition.items():
            what = f"partition of class {class_names[label]!r}"
            train, test = (np.sort(check_indices(part, what, len(labels))) for part in parts)
            rows = np.concatenate([train, test])
            check_indices(rows, f"{what}, training and test together", len(labels))
            foreign = rows[labels[rows] != label]
            if foreign.size:
                raise DatasetError(
                    f"{what}: row {foreign[0]} is of class {class_names[labels[foreign[0]]]!r}"
                )
            partition[label] = (train, test)
        return ClassSplits(classes, partition)

    def split(self, name: str, *, generalized: bool, labels: np.ndarray) -> Split:
        """Build the split ``name``.

        Raises:
            DatasetError: if it is generalized and a seen class lacks training or test rows.
        """
        seen, unseen = self.classes[name]
        if generalized:
            parts = [self._parts(int(label), labels) for label in seen]
            for label, part in zip(seen, parts, strict=True):
                if not (part[0].size and part[1].size):
                    raise DatasetError(
                        f"split {name!r}: class {label} needs a training row and a test row, "
                        f"its partition has {part[0].size} and {part[1].size}"
                    )
            train, test_seen = (np.sort(np.concatenate(side)) for side in zip(*parts, strict=True))
        else:
            train, test_seen = np.flatnonzero(np.isin(labels, seen)), _NO_ROWS
        test_unseen = np.flatnonzero(np.isin(labels, unseen))
        return Split(name, generalized, seen, unseen, train, test_seen, test_unseen)

    def _parts(self, label: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.partition is None:
            return partition_rows(np.flatnonzero(labels == label), label)
        return self.partition.get(label, (_NO_ROWS, _NO_ROWS))


@dataclass(frozen=True, eq=False)
class RowSplits:
    """Splits given row by row; the seen and unseen classes follow from the rows' labels.

    Attributes:
        zsl: Split name to the rows of the conventional split.
        gzsl: Split name to the rows of the generalized split.
    """

    zsl: Mapping[str, Rows]
    gzsl: Mapping[str, Rows]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits of either kind."""
        return tuple(dict.fromkeys((*self.zsl, *self.gzsl)))

    def check(self, labels: np.ndarray, class_names: Sequence[str]) -> RowSplits:
        """Return a checked copy for rows with these ``labels [N]``.

        Raises:
            DatasetError: if rows are missing, out of range or used twice, or a class is on
                both sides.
        """
        return RowSplits(
            {k: _check_rows(k, v, False, labels, class_names) for k, v in self.zsl.items()},
            {k: _check_rows(k, v, True, labels, class_names) for k, v in self.gzsl.items()},
        )

    def split(self, name: str, *, generalized: bool, labels: np.ndarray) -> Split:
        """Build the split ``name``.

        Raises:
            DatasetError: if the split exists only in the other kind.
        """
        table = self.gzsl if generalized else self.zsl
        if name not in table:
            kind = "generalized" if generalized else "conventional"
            raise DatasetError(f"split {name!r} has no {kind} form; that kind has {list(table)}")
        rows = table[name]
        seen, unseen = np.unique(labels[rows.train]), np.unique(labels[rows.test_unseen])
        return Split(name, generalized, seen, unseen, **rows._asdict())


def _check_rows(
    name: str, rows: Rows, generalized: bool, labels: np.ndarray, class_names: Sequence[str]
) -> Rows:
    arrays = {}
    for part in Rows._fields if generalized else ("train", "test_unseen"):
        what = f"split {name!r}, {part}"
        arrays[part] = check_indices(getattr(rows, part), what, len(labels))
        if not arrays[part].size:
            raise DatasetError(f"{what}: expected at least one row, got none")
    checked = Rows(**arrays)
    check_indices(np.concatenate(checked), f"split {name!r}, all rows together", len(labels))
    seen, unseen = np.unique(labels[checked.train]), np.unique(labels[checked.test_unseen])
    _check_sides(name, seen, unseen, class_names)
    untrained = np.setdiff1d(labels[checked.test_seen], seen)
    if untrained.size:
        raise DatasetError(
            f"split {name!r}: test_seen has rows of class "
            f"{describe_classes(untrained, class_names)}, which has no training rows"
        )
    return checked


def _check_sides(
    name: str, seen: np.ndarray, unseen: np.ndarray, class_names: Sequence[str]
) -> None:
    if not (seen.size and unseen.size):
        raise DatasetError(
            f"split {name!r}: expected at least one seen and one unseen class, "
            f"got {seen.size} and {unseen.size}"
        )
    both = np.intersect1d(seen, unseen)
    if both.size:
        raise DatasetError(
            f"split {name!r}: both seen and unseen: {describe_classes(both, class_names)}"
        )
