"""The figures of a run: time against N, memory against N, fraction of the floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import peers
from scaling import curve, exponent

matplotlib.use("svg")
from matplotlib import pyplot

Records = list[dict[str, Any]]

# Without these, the same figures give other files on every run.
matplotlib.rcParams["svg.hashsalt"] = "mcfa_fast"
METADATA = {"Date": None}


def draw(records: Records, folder: Path, stem: str, title: str) -> list[Path]:
    """Writes ``<stem>-time.svg``, ``<stem>-memory.svg`` and ``<stem>-floor.svg``."""
    scaling = [record for record in records if record["job"] == "scaling"]
    what = "D = {d}, C = {c}, float32".format(**scaling[0])
    drawings = {"time": _time, "memory": _memory, "floor": _floor}
    paths = []
    for name, drawing in drawings.items():
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        drawing(axes, scaling)
        axes.set_title(f"{title}\n{what}", fontsize=9)
        axes.set_xlabel("N, instances in the batch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        paths.append(folder / f"{stem}-{name}.svg")
        figure.savefig(paths[-1], metadata=METADATA)
        pyplot.close(figure)
    return paths


def _curves(axes: Any, records: Records, quantity: str, scale: float) -> None:
    for name, threads in _runs(records):
        instances, values = curve(records, quantity, name, threads)
        slope = exponent(instances, values)
        label = _label(name, threads) + ("" if slope is None else f", N^{slope:.2f}")
        axes.loglog(instances, [value / scale for value in values], "o-", ms=3, label=label)


def _time(axes: Any, records: Records) -> None:
    _curves(axes, records, "seconds", 1.0)
    threads = max(record["threads"] for record in records)
    floors = {
        record["n"]: record["floor"]
        for record in records
        if record["threads"] == threads and peers.LIBRARY in record["seconds"]
    }
    axes.loglog(*zip(*sorted(floors.items()), strict=True), "k--", lw=1, label="floor")
    axes.set_ylabel("seconds, three losses forward+backward")


def _memory(axes: Any, records: Records) -> None:
    _curves(axes, records, "peak_bytes", 2**20)
    axes.set_ylabel("peak memory above the inputs, MiB")


def _floor(axes: Any, records: Records) -> None:
    for name, threads in _runs(records):
        points = sorted(
            (record["n"], record["floor"] / record["seconds"][name])
            for record in records
            if name in record["seconds"] and record["threads"] == threads
        )
        axes.semilogx(*zip(*points, strict=True), "o-", ms=3, label=_label(name, threads))
    axes.axhline(1.0, color="k", ls="--", lw=1, label="floor")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("fraction of the floor")


def _runs(records: Records) -> list[tuple[str, int]]:
    """Contenders with their numbers of threads, in the order in which they were measured."""
    return list(
        dict.fromkeys((name, record["threads"]) for record in records for name in record["seconds"])
    )


def _label(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
