"""The figures of a run, but for its embedding map. All are drawn by :func:`~.svg.drawn`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, NullFormatter, ScalarFormatter

from mcfa_fast.reporting.palette import CELL, CLASS_COLOURS, COLOURS
from mcfa_fast.reporting.svg import hue, printable

__all__ = [
    "LABELLED_CLASSES",
    "CurvePoint",
    "TradeOff",
    "class_bars",
    "confusion_matrix",
    "head_colour",
    "history",
    "seen_unseen",
]

LABELLED_CLASSES = 60
"""With more classes than these, figures leave out their names."""

_NUMBERED_CLASSES = 40
_LOG_FROM = 20.0
"""A loss whose largest value is this many times its smallest one is shown on a log scale."""


@dataclass(frozen=True)
class CurvePoint:
    """A point to mark on a seen-unseen curve: accuracies in 0..1."""

    seen: float
    unseen: float
    label: str
    filled: bool


@dataclass(frozen=True, eq=False)
class TradeOff:
    """One head's seen-unseen curve [2, B], if its file is there, and its marked points."""

    head: str
    curve: np.ndarray | None
    points: tuple[CurvePoint, ...]


def head_colour(head: str, position: int) -> str:
    """Name of a head's colour; `position` tells those apart that have none of their own."""
    return head if head in COLOURS else CLASS_COLOURS[position % len(CLASS_COLOURS)]


def history(name: str, epochs: np.ndarray, values: np.ndarray, colour: str) -> Figure:
    """One quantity over the epochs."""
    figure = Figure(figsize=(2.75, 1.95), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, values, color=hue(colour), marker="o" if len(epochs) <= 15 else "", ms=3)
    if values.min() > 0 and values.max() / values.min() >= _LOG_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_powerlimits((-3, 5))
        axes.yaxis.set_major_formatter(formatter)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.set_title(printable(name))
    axes.set_xlabel("epoch")
    return figure


def confusion_matrix(
    counts: np.ndarray, names: Sequence[str], kinds: Sequence[str | None]
) -> Figure:
    """Row-normalised confusion matrix, in the given order of classes.

    Args:
        counts: confusion counts [K, K].
        names: of the classes [K].
        kinds: of the classes [K], "seen" or "unseen", seen ones first; None where unknown.
    """
    classes = len(names)
    labelled = classes <= LABELLED_CLASSES
    side = max(3.0, 0.215 * classes) if labelled else 7.0
    figure = Figure(figsize=(side + 1.7, side + 1.5), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.empty((classes, classes, 4))
    # Opacity instead of a colour scale: it reads the same on a light and on a dark page.
    cells[..., :3], cells[..., 3] = CELL, shares
    axes.imshow(cells, interpolation="none", aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=hue("grid"))
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true")
    if labelled:
        texts = [printable(name) for name in names]
        turned: dict[str, Any] = {} if max(map(len, texts)) <= 2 else {"rotation": 90}
        axes.set_xticks(range(classes), texts, **turned)
        axes.set_yticks(range(classes), texts)
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            for text, kind in zip(ticks, kinds, strict=True):
                text.set_color(hue(kind or "ink"))
    else:
        axes.set(xticks=[], yticks=[])
    seen = sum(kind == "seen" for kind in kinds)
    if 0 < seen < classes:
        for line in (axes.axhline, axes.axvline):
            line(seen - 0.5, color=hue("muted"), lw=0.8, ls=(0, (4, 3)))
    if classes <= _NUMBERED_CLASSES:
        for row, column in np.argwhere(shares >= 0.005):
            share = shares[row, column]
            axes.text(
                column,
                row + 0.03,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                size=6.0 if classes > 12 else 8.0,
                color=hue("on-cell" if share > 0.5 else "ink"),
            )
    return figure


def class_bars(
    accuracies: Sequence[float | None], names: Sequence[str], kinds: Sequence[str | None]
) -> Figure:
    """Accuracy of every class as a bar: seen classes above unseen ones, best first."""
    order = sorted(
        range(len(names)), key=lambda row: (kinds[row] == "unseen", -(accuracies[row] or 0), row)
    )
    classes = len(order)
    labelled = classes <= LABELLED_CLASSES
    figure = Figure(
        figsize=(5.0, (0.165 * classes if labelled else 6.0) + 0.75), layout="constrained"
    )
    axes = figure.add_subplot()
    values = [100 * (accuracies[row] or 0) for row in order]
    colours = [hue(kinds[row] or "muted") for row in order]
    # A gap between the kinds, so that colour is not the only sign of them.
    unseen = np.array([kinds[row] == "unseen" for row in order])
    gap = 0.8 if unseen.any() and not unseen.all() else 0.0
    places = np.arange(classes) + gap * unseen
    axes.barh(places, values, height=0.72 if labelled else 1.0, color=colours)
    if labelled:
        axes.set_yticks(places, [printable(names[row]) for row in order])
        for place, value, row in zip(places, values, order, strict=True):
            text = "no images" if accuracies[row] is None else f"{value:.1f}"
            axes.text(value + 1, place, text, va="center", size=6.8, color=hue("muted"))
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 109), ylim=(places[-1] + 0.7, -0.7), xticks=range(0, 101, 20))
    axes.set_xlabel("accuracy in %")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


def seen_unseen(trade_offs: Sequence[TradeOff]) -> Figure:
    """Seen over unseen accuracy at every calibration, with lines of equal harmonic mean."""
    figure = Figure(figsize=(5.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    reach = {"seen": [0.3], "unseen": [0.3]}
    for trade_off in trade_offs:
        reach["seen"] += [point.seen for point in trade_off.points]
        reach["unseen"] += [point.unseen for point in trade_off.points]
        if trade_off.curve is not None:
            reach["seen"].append(trade_off.curve[0].max())
            reach["unseen"].append(trade_off.curve[1].max())
    right, top = (min(100.0, 100 * max(reach[kind]) * 1.1) for kind in ("unseen", "seen"))
    _equal_harmonic_means(axes, right, top)
    for position, trade_off in enumerate(trade_offs):
        colour = hue(head_colour(trade_off.head, position))
        name = printable(trade_off.head)
        if trade_off.curve is not None:
            seen, unseen = 100 * trade_off.curve
            axes.plot(unseen, seen, color=colour, ls=("-", "--", ":", "-.")[position % 4])
        for point in trade_off.points:
            axes.plot(
                [100 * point.unseen],
                [100 * point.seen],
                "os^D"[position % 4] if point.filled else "*",
                ms=6 if point.filled else 10,
                color=colour,
                mfc=colour if point.filled else hue("surface"),
                mew=1.2,
                label=f"{name}: {point.label}",
                clip_on=False,
                zorder=3,
                ls="",
            )
    axes.set(xlim=(0, right), ylim=(0, top))
    axes.set(xlabel="accuracy U on unseen classes in %", ylabel="accuracy S on seen classes in %")
    figure.legend(loc="outside lower left", handletextpad=0.4)
    return figure


def _equal_harmonic_means(axes: Axes, right: float, top: float) -> None:
    for harmonic in range(10, 100, 10):
        # S = H·U / (2U − H), from the U at which S reaches the top on.
        first = harmonic * top / (2 * top - harmonic) if 2 * top > harmonic else np.inf
        if first >= right:
            break
        unseen = np.geomspace(first, right, 60)
        seen = harmonic * unseen / (2 * unseen - harmonic)
        axes.plot(unseen, seen, color=hue("faint"), lw=0.6, zorder=1)
        axes.annotate(
            f"H = {harmonic}" if harmonic == 10 else str(harmonic),
            (unseen[-1], seen[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            size=6.5,
            color=hue("muted"),
            va="center",
            annotation_clip=False,
        )
