"""The trials of a sweep as rows of results, and which of them wins."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TrialRow", "best_trial", "trials_csv", "winner"]


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        number: counted from 0, which is the preset itself.
        state: "complete", "pruned" (also when training diverged), "failed", "running" in another
            process, or "unfinished" when its process died, so that it is run again next time.
        value: its score in 0..1; None unless complete.
        options: the options that were searched.
        splits: score per split.
        calibrations: calibration per split that goes with the score, as a multiple of the head's
            unit; empty for task "zsl".
        folds: score of every fold of every split and seed; empty unless complete.
        seconds: duration of all its trainings together.
        note: why it is not complete.
    """

    number: int
    state: str
    value: float | None
    options: Mapping[str, Any]
    splits: Mapping[str, float]
    calibrations: Mapping[str, float]
    folds: tuple[float, ...]
    seconds: float | None
    note: str

    @property
    def error(self) -> float | None:
        """Standard error of the value, from the spread over folds; None unless complete."""
        if self.value is None:
            return None
        return float(np.std(self.folds, ddof=1) / np.sqrt(len(self.folds)))

    @property
    def outcome(self) -> tuple[float, float]:
        """Value and standard error of a complete trial."""
        assert self.value is not None and self.error is not None, "only of a complete trial"
        return self.value, self.error


def best_trial(rows: Iterable[TrialRow]) -> TrialRow | None:
    """The (first) complete trial of highest value; None without one."""
    complete = [row for row in rows if row.state == "complete"]
    return max(complete, key=lambda row: row.outcome[0], default=None)


def winner(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The best trial if it is ahead of the preset by more than its own standard error.

    Else the preset, trial 0: the best of many trials is ahead by chance as well. A preset that is
    not complete because it failed or diverged is no opponent.

    Source:
        The rule of one standard error: Breiman et al., "Classification and Regression Trees", 1984,
        Section 3.4.3.
    """
    best = best_trial(rows)
    if best is None or rows[0].state in ("unfinished", "running"):
        return None
    if rows[0].state != "complete":
        return best
    value, error = best.outcome
    return best if value - rows[0].outcome[0] > error else rows[0]


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
    columns = ["trial", "state", "value", "standard_error", *options, *splits, *calibrations]
    writer.writerow([*columns, "seconds", "note"])
    for row in rows:
        writer.writerow(
            [
                row.number,
                row.state,
                row.value,
                row.error,
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
    return json.dumps(value) if value is None or isinstance(value, tuple | bool) else value
