"""What the page says about a run: numbers, tables and figures, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.reporting.figures import (
    CurvePoint,
    TradeOff,
    class_bars,
    confusion_matrix,
    history,
    method_colour,
    seen_unseen,
)
from mcfa_fast.reporting.latent_section import LatentSection, latent_section
from mcfa_fast.reporting.run_files import MethodResult, RunFiles
from mcfa_fast.reporting.settings import Setting, settings_of
from mcfa_fast.reporting.svg import drawn

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
    "validation_score": "validation score, %",
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
    """Everything about one classifier that is not in the results table."""

    method: str
    colour: str
    result: MethodResult
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
        method: the classifier that it answers with unless another is asked for; None if unknown.
        traces: the training curves; empty without them.
        trade_off: the seen-unseen curves; None for a run that is not generalized.
        without_curve: the generalized run's classifiers whose curve file is not there.
        panels: per classifier.
        kinds: of the classes in the results' order, "seen" or "unseen"; None where unknown.
        latents: the latent map, or why there is none.
        settings: all options.
        held_out: names of the classes held out for validation, as far as known.
        wide: whether figures of all classes take the whole width.
    """

    key: str
    name: str
    run: RunFiles
    method: str | None
    traces: tuple[Markup, ...]
    trade_off: Markup | None
    without_curve: tuple[str, ...]
    panels: tuple[Panel, ...]
    kinds: tuple[str | None, ...]
    latents: LatentSection
    settings: tuple[Setting, ...]
    held_out: tuple[str, ...]
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
            "Mode": config["mode"],
        }
        if self.method is not None:
            facts["Own classifier"] = self.method
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
        facts["Chance"] = f"{100 / classes:.1f} %"
        if "seen" in self.kinds:
            facts["Chance"] += f", ZSL {100 / self.kinds.count('unseen'):.1f} %"
        if run.metrics is not None:
            facts["Epochs"] = f"{int(run.metrics['epoch'].max())}"
            if "seconds" in run.metrics:
                facts["Training time"] = f"{run.metrics['seconds'].sum():.0f} s"
        facts["Seed"] = config.get("seed", "unknown")
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
    classifier = MCFAClassifier.load(path) if path.exists() else None
    kinds = _kinds(run, classifier)
    order = sorted(range(len(kinds)), key=lambda row: kinds[row] == "unseen")
    panels = tuple(
        _panel(f"{key}-{position}", position, method, result, kinds, order)
        for position, (method, result) in enumerate(run.results.items())
    )
    return RunContent(
        key=key,
        name=name,
        run=run,
        method=None if classifier is None else classifier.method,
        traces=_traces(run, key),
        trade_off=_trade_off(run, key) if run.generalized else None,
        without_curve=tuple(method for method in run.results if method not in run.curves)
        if run.generalized
        else (),
        panels=panels,
        kinds=kinds,
        latents=latent_section(run, classifier, key, data),
        settings=settings_of(run.config),
        held_out=_held_out(run, classifier),
        wide=len(kinds) >= _WIDE_CLASSES,
    )


def _kinds(run: RunFiles, classifier: MCFAClassifier | None) -> tuple[str | None, ...]:
    rows = run.first.classes
    if not run.generalized:
        return ("unseen",) * len(rows)
    if classifier is None:
        return (None,) * len(rows)
    seen = set(classifier.seen_classes_.tolist())
    return tuple("seen" if row.index in seen else "unseen" for row in rows)


def _held_out(run: RunFiles, classifier: MCFAClassifier | None) -> tuple[str, ...]:
    if run.validation is None or classifier is None:
        return ()
    names = classifier.class_names_
    return tuple(names[label] for label in run.validation.held_out if label < len(names))


def _panel(
    key: str,
    position: int,
    method: str,
    result: MethodResult,
    kinds: Sequence[str | None],
    order: Sequence[int],
) -> Panel:
    names = [row.name for row in result.classes]
    accuracies = [row.accuracy for row in result.classes]
    counts = np.array(result.confusion)
    described = f"of {method} over {len(names)} classes"
    return Panel(
        method=method,
        colour=method_colour(method, position),
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
    traces = []
    sources = [(run.metrics, None)]
    if run.validation_metrics is not None:
        # Of the run on the held-out classes, only what the final run does not have.
        own = {"epoch", "seconds"} | set(run.metrics or ())
        rest = {
            name: values
            for name, values in run.validation_metrics.items()
            if name == "epoch" or name not in own
        }
        sources.append((rest, run.validation))
    for metrics, validation in sources:
        for name, values in (metrics or {}).items():
            if name in ("epoch", "seconds") or not np.isfinite(values).all():
                continue
            is_score = name == "validation_score"
            chosen = validation.epochs if is_score and validation is not None else None
            title = _LOSS_NAMES.get(name, name)
            shown = 100 * values if is_score else values
            label = f"{title} over {len(values)} epochs, from {shown[0]:.4g} to {shown[-1]:.4g}"
            colour = "unseen" if is_score else "ink" if name == "total" else "seen"
            identifier = f"{key}-trace-{len(traces)}"
            traces.append(
                drawn(identifier, label, history, title, metrics["epoch"], shown, colour, chosen)
            )
    return tuple(traces)


def _trade_off(run: RunFiles, key: str) -> Markup:
    trade_offs, described = [], []
    for method, result in run.results.items():
        values = result.generalized
        used = f"used, calibration {values.calibration:.3g} (H {100 * values.harmonic:.1f})"
        best = f"best H, chosen on the test rows (H {100 * values.best.harmonic:.1f})"
        points = (
            CurvePoint(values.seen, values.unseen, used, filled=True),
            CurvePoint(values.best.seen, values.best.unseen, best, filled=False),
        )
        trade_offs.append(TradeOff(method, run.curves.get(method), points))
        described.append(f"{method} with area {values.ausuc:.3f}")
    label = f"Seen-unseen curves: {', '.join(described)}"
    return drawn(f"{key}-trade-off", label, seen_unseen, trade_offs)
