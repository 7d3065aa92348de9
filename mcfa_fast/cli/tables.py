"""Results for the terminal."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from mcfa_fast.cli.common import console
from mcfa_fast.data import Dataset, Split
from mcfa_fast.data.checks import describe_classes
from mcfa_fast.evaluation import Evaluation
from mcfa_fast.inference import METHODS, MCFAClassifier


def print_results(
    results: dict[str, Evaluation], classifier: MCFAClassifier, dataset: Dataset, split: Split
) -> None:
    """The results of a classifier on a split, and what could not be computed.

    Args:
        results: of every method; empty if no unseen class of the split has test rows.
        classifier: what they are of.
        dataset, split: what it was evaluated on.
    """
    if results:
        console.print(summary_table(results))
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
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _seen_accuracies(classifier: MCFAClassifier, dataset: Dataset, split: Split) -> str:
    features, labels = dataset.features[split.test_seen], dataset.labels[split.test_seen]
    own, parts = classifier.method, []
    for method in METHODS:
        accuracy = classifier.set_params(method=method).score(features, labels)
        parts.append(f"{method} {100 * accuracy:.1f}")
    classifier.set_params(method=own)
    return ", ".join(parts)


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
            rows[0].name,
            str(rows[0].count),
            *("–" if row.accuracy is None else f"{100 * row.accuracy:.1f}" for row in rows),
        )
    return table
