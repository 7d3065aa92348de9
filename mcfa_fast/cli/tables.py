"""Results as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from mcfa_fast.evaluation import Evaluation


def summary_table(results: dict[str, Evaluation]) -> Table:
    first = next(iter(results.values()))
    generalized = first.generalized is not None
    table = Table(title=f"{first.dataset}, split {first.split}: mean per-class accuracy in %")
    columns = ["S seen", "U unseen", "H", "AUSUC", "calibration"] if generalized else []
    notes = ["note"] if any(result.note for result in results.values()) else []
    for column in ("classifier", "ZSL", *columns, *notes):
        table.add_column(column, justify="left" if column in ("classifier", "note") else "right")
    for method, result in results.items():
        row = [method, f"{100 * result.accuracy:.1f}"]
        if result.generalized is not None:
            values = result.generalized
            row += [f"{100 * v:.1f}" for v in (values.seen, values.unseen, values.harmonic)]
            row += [f"{values.ausuc:.3f}", f"{values.calibration:.3g}"]
        table.add_row(*row, *([result.note] if notes else []))
    return table


def class_table(results: dict[str, Evaluation]) -> Table:
    table = Table(title="Accuracy per class in %")
    table.add_column("class")
    table.add_column("images", justify="right")
    for method in results:
        table.add_column(method, justify="right")
    for rows in zip(*(result.classes for result in results.values()), strict=True):
        table.add_row(
            rows[0].name, str(rows[0].count), *(f"{100 * row.accuracy:.1f}" for row in rows)
        )
    return table
