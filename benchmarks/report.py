"""The tables that a run prints."""

from __future__ import annotations

from typing import Any

import peers
from rich.console import Console
from rich.table import Table
from scaling import curve, exponent
from targets import TARGETS

Records = list[dict[str, Any]]

PEERS = (
    peers.PLAIN,
    peers.PLAIN_FUSED,
    peers.COMPILED,
    peers.METRIC_LEARNING,
    peers.LIGHTLY,
    peers.AUTHORS,
    peers.ONE_PROCESS,
)


def judged(records: Records) -> list[dict[str, Any]]:
    """Each target with the figure reached; None where it was not measured."""
    rows = []
    for target in TARGETS:
        record = target.record(records)
        figure = None if record is None else target.figure(record)
        rows.append(
            {
                "case": target.title,
                "kind": target.kind,
                "against": target.against,
                "target": target.reach,
                "reached": figure,
                "met": None if figure is None else target.is_met(figure),
            }
        )
    return rows


def exponents(records: Records) -> list[dict[str, Any]]:
    """The growth of time and memory with N, per contender and number of threads."""
    runs = {
        (name, record["threads"])
        for record in records
        if record["job"] == "scaling"
        for name in record["seconds"]
    }
    rows = []
    for name, threads in sorted(runs):
        row = {"contender": name, "threads": threads}
        for quantity in ("seconds", "peak_bytes"):
            row[quantity] = exponent(*curve(records, quantity, name, threads))
        rows.append(row)
    return rows


def show(records: Records, console: Console) -> None:
    """Prints every case, the scaling, what was skipped, and reached against target."""
    console.print(_cases(records), _scaling(records), _exponents(records))
    for note in _skipped(records):
        console.print(note)
    console.print(_targets(records))


def _cases(records: Records) -> Table:
    table = Table(title="Median time per call, and how many times longer the others take")
    for column in ("job", "N×D×C", "part", "threads", peers.LIBRARY, "of floor", *PEERS):
        table.add_column(column, justify="left" if column in ("job", "part") else "right")
    for record in records:
        if record["job"] == "scaling":
            continue
        seconds = record["seconds"]
        library = seconds[peers.LIBRARY]
        form = "in" if record.get("positives") == "in" else None
        top = f"top {record['k']}" if "k" in record else None
        names = ("loss", "sampler", "preset", "head", "dtype", "exchange")
        details = (*(record.get(name) for name in names), form, top)
        kind = " ".join(filter(None, (record["job"], *details)))
        table.add_row(
            kind,
            "{n}×{d}×{c}".format(**record),
            record["part"],
            str(record["threads"]),
            _duration(library),
            f"{record['floor'] / library:.2f}",
            *(f"{seconds[peer] / library:.1f}×" if peer in seconds else "" for peer in PEERS),
        )
    return table


def _scaling(records: Records) -> Table:
    table = Table(title="Three losses, forward+backward, against N")
    for column in ("contender", "threads", "N", "time", "of floor", "memory above inputs"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for record in records:
        if record["job"] != "scaling":
            continue
        for name, seconds in record["seconds"].items():
            table.add_row(
                name,
                str(record["threads"]),
                f"{record['n']:,}",
                _duration(seconds),
                f"{record['floor'] / seconds:.2f}",
                f"{record['peak_bytes'][name] / 2**20:,.1f} MiB",
            )
    return table


def _exponents(records: Records) -> Table:
    table = Table(title="Fitted exponents of N")
    for column in ("contender", "threads", "time", "memory"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in exponents(records):
        fitted = (row["seconds"], row["peak_bytes"])
        texts = ("" if value is None else f"{value:.2f}" for value in fitted)
        table.add_row(row["contender"], str(row["threads"]), *texts)
    return table


def _skipped(records: Records) -> list[str]:
    reasons = {
        (peer, reason) for record in records for peer, reason in record.get("skipped", {}).items()
    }
    return [f"Skipped: {peer} ({reason})" for peer, reason in sorted(reasons)]


def _targets(records: Records) -> Table:
    table = Table(title="Reached against target")
    for column in ("case", "time", "floor", "measure", "target", "reached", ""):
        table.add_column(column, justify="left" if column in ("case", "measure") else "right")
    for target in TARGETS:
        record = target.record(records)
        reached, verdict, times = "not measured", "", ("", "")
        if record is not None:
            figure = target.figure(record)
            reached = target.text(figure)
            verdict = "[green]met[/]" if target.is_met(figure) else "[red]short[/]"
            times = (_duration(record["seconds"][peers.LIBRARY]), _duration(record["floor"]))
        measure = f"{target.kind} than {target.against}" if target.against else target.kind
        bound = "≤" if target.at_most else "≥"
        required = f"{bound} {target.text(target.reach)}"
        table.add_row(target.title, *times, measure, required, reached, verdict)
    return table


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
