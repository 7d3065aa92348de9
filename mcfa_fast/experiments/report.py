"""Tables of a comparison, for a file in Markdown or for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcfa_fast.experiments.contestants import default_opponent
from mcfa_fast.experiments.table import MEASURES, Row, Spread, chance, differences, spread

__all__ = ["Table", "check_against", "comparison_tables", "to_markdown"]

_COLUMNS = {
    "accuracy": "ZSL",
    "seen": "S seen",
    "unseen": "U unseen",
    "harmonic": "H",
    "ausuc": "AUSUC",
}


@dataclass(frozen=True)
class Table:
    """A titled table of texts; the first column is to be aligned left."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison_tables(rows: Sequence[Row], against: str | None = None) -> list[Table]:
    """For every mode, task and ratio one table of means over splits, and one of paired differences.

    There is no table of differences without the opponent and another on two or more of the same
    splits.

    Args:
        rows: all results.
        against: label that the others are compared with, the same in all tables; None is the
            recommended system.
    """
    opponent = against or default_opponent()
    tables = []
    for mode, task, ratio in dict.fromkeys((row.mode, row.task, row.ratio) for row in rows):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if (row.mode, row.task, row.ratio) == (mode, task, ratio):
                groups.setdefault(row.label, []).append(row)
        title = f"{task.upper()} {ratio}"
        if mode != "inductive":
            title += f", {mode}"
        tables.append(_means(title, task, groups))
        if opponent in groups:
            gaps = _differences(title, task, groups, opponent)
            tables += [gaps] if gaps.rows else []
    return tables


def check_against(against: str | None, labels: Sequence[str]) -> None:
    """Raise a ValueError unless `against` is one of the labels or None."""
    if against is not None and against not in labels:
        names = ", ".join(dict.fromkeys(labels))
        raise ValueError(f"against: expected one of {names}, got {against!r}")


def to_markdown(tables: Sequence[Table]) -> str:
    """The tables as sections of a Markdown text."""
    parts = []
    for table in tables:
        alignment = ["---", *["---:"] * (len(table.columns) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (table.columns, alignment)]
        lines += ["| " + " | ".join(cells) + " |" for cells in table.rows]
        parts.append(f"## {table.title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _means(title: str, task: str, groups: dict[str, list[Row]]) -> Table:
    every = [row for group in groups.values() for row in group]
    notes = any(row.note for row in every)
    guesses = (f"{100 * chance(every, measure):.1f}" for measure in MEASURES[task])
    splits = str(len({row.split for row in every}))
    lines = [("chance", *guesses, splits, *([""] if notes else []))]
    for name, group in groups.items():
        cells = [spread(group, measure) for measure in MEASURES[task]]
        note = [group[0].note] if notes else []
        lines.append((name, *map(_spread_text, cells), str(cells[0].splits), *note))
    return Table(
        f"{title}: mean ± standard deviation over splits, in %",
        (
            "system",
            *(_COLUMNS[measure] for measure in MEASURES[task]),
            "splits",
            *(["note"] if notes else []),
        ),
        tuple(lines),
    )


def _differences(title: str, task: str, groups: dict[str, list[Row]], opponent: str) -> Table:
    lines = []
    for name, group in groups.items():
        gap = None if name == opponent else differences(group, groups[opponent])
        if gap is not None:
            interval = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
            lines.append((name, f"{100 * gap.mean:+.1f}", interval, str(gap.splits)))
    headline = "H" if task == "gzsl" else "accuracy"
    return Table(
        f"{title}: {headline} less that of {opponent}, in points",
        ("system", "difference", "95% interval", "splits"),
        tuple(lines),
    )


def _spread_text(value: Spread) -> str:
    deviation = "" if value.std is None else f" ± {100 * value.std:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"
