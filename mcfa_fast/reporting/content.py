"""What the page says about a run: numbers, tables and figures, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier
from mcfa_fast.evaluation.warnings import warnings_of
from mcfa_fast.reporting.embedding_section import EmbeddingSection, embedding_section
from mcfa_fast.reporting.figures import (
    CurvePoint,
    TradeOff,
    class_bars,
    confusion_matrix,
    head_colour,
    history,
    seen_unseen,
)
from mcfa_fast.reporting.run_files import HeadResult, RunFiles
from mcfa_fast.reporting.settings import SettingGroup, settings_of
from mcfa_fast.reporting.svg import drawn
from mcfa_fast.systems.base import TrainableConfig

__all__ = ["Confusion", "Panel", "RunContent", "describe_run"]

_HARDEST = 10
_WIDE_CLASSES = 14
"""From so many classes on, a figure of them takes the page's whole width."""

_LOSS_NAMES = {
    "total": "total",
    "reconstruction": "reconstruction",
    "kl": "KL divergence",
    "cross_reconstruction": "cross reconstruction",
    "alignment": "Wasserstein alignment",
    "vtov": "VtoV contrast",
    "vtos": "VtoS contrast",
    "stov": "StoV contrast",
}


@dataclass(frozen=True)
class Confusion:
    """How often images of one class were taken for another."""

    true: str
    predicted: str
    true_kind: str | None
    predicted_kind: str | None
    count: int
    share: float


@dataclass(frozen=True)
class Panel:
    """Everything about one head that is not in the results table."""

    head: str
    colour: str
    result: HeadResult
    matrix: Markup
    bars: Markup
    hardest: tuple[Confusion, ...]


@dataclass(frozen=True)
class RunContent:
    """One run as the template shows it.

    Attributes:
        key: prefix of the run's identifiers on the page.
        name: of its folder.
        run: what the folder says.
        warnings: per head, sentences about results that ought not to be relied on.
        traces: the training curves; empty without them.
        untrained: why there are no training curves; empty if there are.
        trade_off: the seen-unseen curves; None for a run that is not generalized.
        without_curve: the generalized run's heads whose curve file is not there.
        panels: per head.
        kinds: of the classes in the results' order, "seen" or "unseen"; None where unknown.
        embeddings: the embedding map, or why there is none.
        settings: all options, by owner.
        wide: whether figures of all classes take the whole width.
    """

    key: str
    name: str
    run: RunFiles
    warnings: dict[str, tuple[str, ...]]
    traces: tuple[Markup, ...]
    untrained: str
    trade_off: Markup | None
    without_curve: tuple[str, ...]
    panels: tuple[Panel, ...]
    kinds: tuple[str | None, ...]
    embeddings: EmbeddingSection
    settings: tuple[SettingGroup, ...]
    wide: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What was done, by name."""
        run, config = self.run, self.run.config
        classes = len(run.first.classes)
        facts: dict[str, Any] = {
            "Dataset": run.first.dataset,
            "Split": run.first.split,
            "Task": "generalized zero-shot (GZSL)" if run.generalized else "zero-shot (ZSL)",
            "System": config.system,
            "Preset": config.preset,
            "Head that answers": config.head,
        }
        if None not in self.kinds:
            seen = sum(kind == "seen" for kind in self.kinds)
            facts["Candidates"] = (
                f"{seen} seen and {classes - seen} unseen classes"
                if seen
                else f"{classes} unseen classes"
            )
        else:
            facts["Candidates"] = f"{classes} classes"
        facts["Test images"] = f"{sum(row.count for row in run.first.classes):,}"
        if run.metrics is not None:
            facts["Epochs"] = f"{int(run.metrics['epoch'].max())}"
            if "seconds" in run.metrics:
                facts["Training time"] = f"{run.metrics['seconds'].sum():.0f} s"
        facts["Seed"] = config.options.seed
        if run.source is not None:
            facts["Data"] = run.source["data"]
            for name in ("features", "semantics"):
                if run.source[name] is not None:
                    facts[name.capitalize()] = run.source[name]
        return facts


def describe_run(run: RunFiles, key: str, name: str, data: str | None) -> RunContent:
    """Draws and computes everything about a run.

    Args:
        run: what its folder says.
        key: prefix of its identifiers on the page.
        name: what the page calls it.
        data: where its dataset lies now, if not where it was.

    Raises:
        ValueError: when ``classifier.pt`` is damaged, or `data` is not what the run was trained on.
    """
    path = run.path / "classifier.pt"
    classifier = ZeroShotClassifier.load(path) if path.exists() else None
    kinds = _kinds(run, classifier)
    order = sorted(range(len(kinds)), key=lambda row: kinds[row] == "unseen")
    panels = tuple(
        _panel(f"{key}-{position}", position, head, result, kinds, order)
        for position, (head, result) in enumerate(run.results.items())
    )
    traces = _traces(run, key)
    chosen = None if run.selection is None else run.selection.setting
    return RunContent(
        key=key,
        name=name,
        run=run,
        warnings={head: warnings_of(result) for head, result in run.results.items()},
        traces=traces,
        untrained="" if traces else _why_untrained(run),
        trade_off=_trade_off(run, key) if run.generalized else None,
        without_curve=tuple(head for head in run.results if head not in run.curves)
        if run.generalized
        else (),
        panels=panels,
        kinds=kinds,
        embeddings=embedding_section(run, classifier, key, data),
        settings=settings_of(run.config, chosen),
        wide=len(kinds) >= _WIDE_CLASSES,
    )


def _kinds(run: RunFiles, classifier: ZeroShotClassifier | None) -> tuple[str | None, ...]:
    rows = run.first.classes
    if not run.generalized:
        return ("unseen",) * len(rows)
    if classifier is None:
        return (None,) * len(rows)
    seen = set(classifier.seen_classes_.tolist())
    return tuple("seen" if row.index in seen else "unseen" for row in rows)


def _panel(
    key: str,
    position: int,
    head: str,
    result: HeadResult,
    kinds: Sequence[str | None],
    order: Sequence[int],
) -> Panel:
    names = [row.name for row in result.classes]
    accuracies = [row.accuracy for row in result.classes]
    counts = np.array(result.confusion)
    described = f"of {head} over {len(names)} classes"
    return Panel(
        head=head,
        colour=head_colour(head, position),
        result=result,
        matrix=drawn(
            f"{key}-matrix",
            f"Confusion matrix {described}: {np.trace(counts):,} of {counts.sum():,} images right",
            confusion_matrix,
            counts[np.ix_(order, order)],
            [names[row] for row in order],
            [kinds[row] for row in order],
        ),
        bars=drawn(
            f"{key}-bars",
            f"Accuracy per class {described}; the table below has the same numbers",
            class_bars,
            accuracies,
            names,
            kinds,
        ),
        hardest=_hardest(counts, names, kinds),
    )


def _hardest(
    counts: np.ndarray, names: Sequence[str], kinds: Sequence[str | None]
) -> tuple[Confusion, ...]:
    """The most frequent confusions, of equal ones those of the smaller class first."""
    totals = counts.sum(axis=1)
    pairs = [(row, column) for row, column in np.argwhere(counts).tolist() if row != column]
    pairs.sort(key=lambda pair: (-counts[pair], totals[pair[0]], pair))
    return tuple(
        Confusion(
            true=names[true],
            predicted=names[predicted],
            true_kind=kinds[true],
            predicted_kind=kinds[predicted],
            count=int(counts[true, predicted]),
            share=float(counts[true, predicted] / totals[true]),
        )
        for true, predicted in pairs[:_HARDEST]
    )


def _traces(run: RunFiles, key: str) -> tuple[Markup, ...]:
    """Curves of the total and of each loss that counts, with its weight."""
    traces: list[Markup] = []
    metrics = run.metrics or {}
    for name, values in metrics.items():
        weight = getattr(run.config.options, f"{name}_weight", None)
        if name in ("epoch", "seconds") or weight == 0 or not np.isfinite(values).all():
            continue
        title = _LOSS_NAMES.get(name, name.replace("_", " "))
        if weight is not None:
            title += f" × {weight:g}"
        label = f"{title} over {len(values)} epochs, from {values[0]:.4g} to {values[-1]:.4g}"
        colour = "ink" if name == "total" else "seen"
        identifier = f"{key}-trace-{len(traces)}"
        traces.append(drawn(identifier, label, history, title, metrics["epoch"], values, colour))
    return tuple(traces)


def _why_untrained(run: RunFiles) -> str:
    if not isinstance(run.config.options, TrainableConfig):
        return f"The system {run.config.system} is not trained in epochs."
    return "The run folder has no epochs in metrics.csv."


def _trade_off(run: RunFiles, key: str) -> Markup:
    trade_offs, described = [], []
    for head, result in run.results.items():
        values = result.generalized
        if values is None:
            continue
        used = f"used, calibration {values.calibration:.3g} (H {100 * values.harmonic:.1f})"
        best = f"best H, chosen on the test rows (H {100 * values.best.harmonic:.1f})"
        points = (
            CurvePoint(values.seen, values.unseen, used, filled=True),
            CurvePoint(values.best.seen, values.best.unseen, best, filled=False),
        )
        trade_offs.append(TradeOff(head, run.curves.get(head), points))
        described.append(f"{head} with area {100 * values.ausuc:.1f} %")
    label = f"Seen-unseen curves: {', '.join(described)}"
    return drawn(f"{key}-trade-off", label, seen_unseen, trade_offs)
