"""Results for the terminal."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.cli.common import console, say, warn
from mcfa_fast.data import Dataset, Split
from mcfa_fast.data.checks import describe_classes
from mcfa_fast.evaluation import Evaluation, warnings_of


def print_results(
    results: dict[str, Evaluation], classifier: ZeroShotClassifier, dataset: Dataset, split: Split
) -> None:
    """The results of a classifier on a split, what to think of them, and what is not known.

    Args:
        results: of every head; empty if no unseen class of the split has test rows.
        classifier: what they are of.
        dataset, split: what it was evaluated on.
    """
    if results:
        first = next(iter(results.values()))
        mode = "" if first.mode == "inductive" else f" {first.mode},"
        say(f"{first.dataset}, split {first.split}:{mode} mean per-class accuracy in %")
        console.print(summary_table(results, classifier.head_.name))
    for head, result in results.items():
        for sentence in warnings_of(result):
            warn(f"{head}: {sentence}")
    untested = np.setdiff1d(split.unseen_classes, dataset.labels[split.test_unseen])
    if not untested.size:
        return
    text = f"No images of class {describe_classes(untested, dataset.class_names)}: "
    if results:
        text += "the accuracies are means over the other classes."
    else:
        text += (
            "nothing tells how well the unseen classes are recognised. A run on a split drawn "
            "among the classes with images, as --split S/U:seed=0, gives an idea."
        )
        if split.generalized:
            text += (
                f" Mean per-class accuracy on test images of seen classes, among all "
                f"{len(classifier.classes_)}, in %: {_seen_accuracies(classifier, dataset, split)}."
            )
    say(text)


def _seen_accuracies(classifier: ZeroShotClassifier, dataset: Dataset, split: Split) -> str:
    features, labels = dataset.features[split.test_seen], dataset.labels[split.test_seen]
    parts = []
    for head in classifier.heads_:
        view = classifier.with_head(head)
        if head != classifier.head_.name:
            view.calibration = None  # it is in units of the scores of the head that answers
        parts.append(f"{head} {100 * view.score(features, labels):.1f}")
    chance = 100 / len(classifier.classes_)
    return f"{', '.join(parts)} (chance {chance:.1f})"


def summary_table(results: dict[str, Evaluation], own: str) -> Table:
    """One row per head and one for chance; a star marks the head that answers.

    Args:
        results: of every head.
        own: which head answers.
    """
    first = next(iter(results.values()))
    generalized = first.generalized is not None
    table = Table(caption="* answers" if len(results) > 1 else None, caption_justify="left")
    columns = ["S seen", "U unseen", "H", "AUSUC", "calibration"] if generalized else []
    notes = ["note"] if any(result.note for result in results.values()) else []
    for column in ("head", "ZSL", *columns, *notes):
        table.add_column(column, justify="left" if column in ("head", "note") else "right")
    for head, result in results.items():
        name = f"{head} *" if head == own and len(results) > 1 else head
        row = [name, _percent(result.accuracy)]
        if result.generalized is not None:
            values = result.generalized
            row += map(_percent, (values.seen, values.unseen, values.harmonic, values.ausuc))
            row.append(f"{values.calibration:.3g}")
        table.add_row(*row, *([result.note] if notes else []))
    table.add_section()
    row = ["chance", _percent(first.chance)]
    if first.generalized is not None:
        row += [_percent(first.generalized.chance)] * 3
    table.add_row(*row)
    return table


def class_table(results: dict[str, Evaluation]) -> Table:
    """One row per class, one column per head."""
    table = Table(title="Accuracy per class in %")
    table.add_column("class")
    table.add_column("images", justify="right")
    for head in results:
        table.add_column(head, justify="right")
    for rows in zip(*(result.classes for result in results.values()), strict=True):
        table.add_row(
            rows[0].name,
            str(rows[0].count),
            *("–" if row.accuracy is None else _percent(row.accuracy) for row in rows),
        )
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
