"""The trials of a sweep as rows of results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TrialRow", "best_trial", "trials_csv"]


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: counted from 0.
        state: "complete", "pruned" (also when training diverged), "failed", or "unfinished" when
            its process died, so that it is run again next time.
        value: its score in 0..1; None unless complete.
        options: the options of MCFA that were searched.
        splits: score per split.
        calibrations: calibration per split that goes with the score; empty for task "zsl".
        seconds: duration of all its trainings together.
        note: why it is not complete.
    """

    number: int
    state: str
    value: float | None
    options: Mapping[str, Any]
    splits: Mapping[str, float]
    calibrations: Mapping[str, float]
    seconds: float | None
    note: str


def best_trial(rows: Iterable[TrialRow]) -> TrialRow | None:
    """The (first) complete trial of highest value; None without one."""
    complete = [row for row in rows if row.state == "complete"]
    return max(complete, key=lambda row: row.value, default=None)


def trials_csv(
    rows: Sequence[TrialRow], options: Sequence[str], splits: Sequence[str], *, generalized: bool
) -> str:
    """One line per trial, with a header; scores in 0..1.

    Args:
        rows: the trials.
        options: names of the options that were searched.
        splits: names of the splits.
        generalized: whether there are calibrations.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    calibrations = [f"calibration {split}" for split in splits] if generalized else []
    writer.writerow(
        ["trial", "state", "value", *options, *splits, *calibrations, "seconds", "note"]
    )
    for row in rows:
        writer.writerow(
            [
                row.number,
                row.state,
                row.value,
                *(_cell(row.options[key]) if key in row.options else None for key in options),
                *map(row.splits.get, splits),
                *(map(row.calibrations.get, splits) if generalized else []),
                row.seconds,
                row.note,
            ]
        )
    return text.getvalue()


def _cell(value: Any) -> Any:
    """None as "null", which is not the empty cell of a trial without the option."""
    return json.dumps(value) if value is None or isinstance(value, (tuple, bool)) else value
