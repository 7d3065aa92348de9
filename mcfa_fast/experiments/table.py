"""Results of a comparison: means over splits, chance, and paired differences."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple, get_args

import numpy as np

from mcfa_fast.experiments.compare import split_ratio
from mcfa_fast.experiments.contestants import Contestant
from mcfa_fast.experiments.jobs import Job, JobResult
from mcfa_fast.systems.presets import Task

__all__ = [
    "MEASURES",
    "Difference",
    "Row",
    "Spread",
    "chance",
    "differences",
    "rows_csv",
    "rows_of",
    "spread",
]

MEASURES = {"zsl": ("accuracy",), "gzsl": ("seen", "unseen", "harmonic", "ausuc")}
"""What a table shows for each task. The headline is the accuracy or the harmonic mean."""

_HEADLINES = {"zsl": "accuracy", "gzsl": "harmonic"}


@dataclass(frozen=True)
class Row:
    """Results of one head on one split. Accuracies are means over classes, in 0..1.

    Attributes:
        label: name of the contestant and head, as tables call it.
        system, preset, head, task, split, seed: what was run.
        seen_classes, unseen_classes: their numbers in the split.
        accuracy: on unseen classes, among them.
        seen, unseen, harmonic, ausuc, calibration: with all classes as candidates; None for the
            task "zsl".
        chosen: what was chosen on folds of the seen classes, as JSON: the setting, its score, among
            how many classes that is per fold, and the head that was judged.
        note: a caveat to print beside the results.
        seconds: duration of the job, selection included.
        mode: "transductive" where test images were classified together.
    """

    label: str
    system: str
    preset: str
    head: str
    task: str
    split: str
    seed: int
    seen_classes: int
    unseen_classes: int
    accuracy: float
    seen: float | None
    unseen: float | None
    harmonic: float | None
    ausuc: float | None
    calibration: float | None
    chosen: str
    note: str
    seconds: float
    mode: str = "inductive"

    @property
    def ratio(self) -> str:
        """The ratio of the split."""
        return split_ratio(self.split)

    @property
    def headline(self) -> float:
        """The number that is compared: accuracy, or for "gzsl" the harmonic mean."""
        return getattr(self, _HEADLINES[self.task])


def rows_of(results: Iterable[JobResult]) -> list[Row]:
    """The rows of all jobs that did not fail, in an order that does not depend on when they ran.

    By mode, task, split, seed, and contestants as the registry has them.
    """
    fields = list(Row.__dataclass_fields__)
    rows = []
    for result in sorted(results, key=lambda result: _order(result.job)):
        for values in result.rows:
            content: dict[str, Any] = {**result.job, **values, "seconds": result.seconds}
            content["chosen"] = json.dumps(values["chosen"])
            content.setdefault("mode", "inductive")
            known: dict[str, Any] = {name: content.get(name) for name in fields}
            rows.append(Row(**known))
    return rows


def rows_csv(rows: Iterable[Row]) -> str:
    """One line per row, with a header; accuracies in 0..1."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(row) for row in rows)
    return text.getvalue()


class Spread(NamedTuple):
    """Mean and sample standard deviation over splits; the latter is None for one split."""

    mean: float
    std: float | None
    splits: int


def spread(rows: Sequence[Row], measure: str) -> Spread:
    """Spread of a measure over the splits; several seeds of a split are averaged first.

    Args:
        rows: of one label, task and ratio, one or more.
        measure: an attribute of :class:`Row`, or "headline".

    Example:
        >>> run = ("eszsl", "eszsl", "paper", "scores", "zsl", "2/1:0", 0)
        >>> row = Row(*run, 2, 1, 0.5, *[None] * 5, "{}", "", 1.0)
        >>> spread([row], "accuracy")
        Spread(mean=0.5, std=None, splits=1)
    """
    values = list(_by_split(rows, measure).values())
    return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def chance(rows: Sequence[Row], measure: str) -> float:
    """What a uniform guess among the candidates reaches, as a mean over splits.

    Its AUSUC is the area below the line between guessing among the seen classes alone and among the
    unseen ones alone.

    Args:
        rows: of one task and ratio, one or more.
        measure: an attribute of :class:`Row` that is one of :data:`MEASURES`.

    Example:
        >>> run = ("eszsl", "eszsl", "paper", "scores", "zsl", "3/2:0", 0)
        >>> row = Row(*run, 3, 2, 0.9, *[None] * 5, "{}", "", 1.0)
        >>> chance([row], "accuracy"), chance([row], "harmonic")
        (0.5, 0.2)
    """
    values = {}
    for row in rows:
        seen, unseen = row.seen_classes, row.unseen_classes
        if measure == "accuracy":
            values[row.split] = 1 / unseen
        elif measure == "ausuc":
            values[row.split] = 1 / (2 * seen * unseen)
        else:
            values[row.split] = 1 / (seen + unseen)
    return mean(values.values())


class Difference(NamedTuple):
    """Mean difference of two labels' headlines over common splits, and its interval.

    `low` and `high` bound the mean with 95% confidence by the paired t-test, as if splits were
    independent draws of classes; splits of one dataset overlap, so that the interval is rather too
    narrow.
    """

    mean: float
    low: float
    high: float
    splits: int


def differences(
    rows: Sequence[Row], reference: Sequence[Row], *, confidence: float = 0.95
) -> Difference | None:
    """Paired difference ``rows - reference``; None with fewer than two common splits.

    Args:
        rows, reference: of one label each, with the same task and ratio.
        confidence: of the interval.
    """
    ours, theirs = _by_split(rows, "headline"), _by_split(reference, "headline")
    common = [split for split in ours if split in theirs]
    if len(common) < 2:
        return None
    first, second = (np.array([table[split] for split in common]) for table in (ours, theirs))
    gaps = first - second
    if np.ptp(gaps) == 0:  # the t-test divides by their standard deviation
        low = high = gaps[0]
    else:
        from scipy.stats import ttest_rel  # slow to import

        low, high = ttest_rel(first, second).confidence_interval(confidence)
    return Difference(float(gaps.mean()), float(low), float(high), len(common))


def _by_split(rows: Sequence[Row], measure: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.split, []).append(getattr(row, measure))
    return {split: mean(of_seeds) for split, of_seeds in values.items()}


def _order(job: Job) -> tuple[Any, ...]:
    digits = re.split(r"(\d+)", job["split"])  # "10" after "9"
    split = [int(part) if number % 2 else part for number, part in enumerate(digits)]
    contestant = Contestant(job["system"], job["preset"])
    task = get_args(Task).index(job["task"])
    order = contestant.order, contestant.system, contestant.preset
    return job.get("mode", "inductive"), task, split, job["seed"], *order
