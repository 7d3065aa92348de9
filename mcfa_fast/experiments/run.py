"""A whole experiment: train on a split's seen classes, classify its test images, write it down."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation.curve import SeenUnseenCurve
from mcfa_fast.evaluation.evaluate import Evaluation, evaluate
from mcfa_fast.evaluation.metrics import harmonic_mean, mean_class_accuracy
from mcfa_fast.classifiers.bulk import encode_means
from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.classifiers.heads_old import METHODS, ClassifierHeads, Monitor
from mcfa_fast.systems.mcfa.model import MCFA
from mcfa_fast.storage.checkpoint import write_atomically
from mcfa_fast.training.trainer import Trainer

__all__ = ["OPTIMISTIC", "evaluate_methods", "run"]

OPTIMISTIC = "optimistic: best test epoch"


def run(
    config: MCFAConfig,
    dataset: Dataset,
    split: Split | str | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> dict[str, Evaluation]:
    """Train the model and both classifiers on a split and evaluate them on its test rows.

    With `run_dir`, a killed run resumes there, and the folder ends up with the training run's own
    files (configuration, checkpoint, metrics), ``classifier.pt`` for
    :meth:`~mcfa_fast.classifiers.classifier_old.MCFAClassifier.load`, ``results.json`` and, for a
    generalized task, the curves as ``curve_METHOD.csv``. The classifier's method is
    :attr:`~mcfa_fast.systems.mcfa.config.MCFAConfig.recommended_method`.

    Test rows are used for the final evaluation only. The one exception is ``selection="test"``,
    which the authors' code does and only ``mode="reference"`` allows: it keeps the epoch of the
    softmax classifier that is best on the test rows, and its results carry the note
    "optimistic: best test epoch".

    Args:
        config: all options; its task decides whether the split is a generalized one.
        dataset: the data.
        split: a split of it or the name of one; None is its first.
        run_dir: folder of the run; None writes nothing.
        device: where to train and encode.
        progress: show progress bars.

    Returns:
        An :class:`~mcfa_fast.evaluation.evaluate.Evaluation` per method: "softmax", "nearest" and
        "ensemble". Nothing if no unseen class of the split has test rows.

    Raises:
        ValueError: when the split does not suit the task, or lacks the test rows that
            ``selection="test"`` needs, or `run_dir` holds another run.

    Example:
        >>> from mcfa_fast import data
        >>> config = MCFAConfig.paper("gzsl", epochs=1, classifier_epochs=1)
        >>> results = run(config, data.load("digits"), "7/3:0")
        >>> sorted(results), results["nearest"].split
        (['ensemble', 'nearest', 'softmax'], '7/3:0')
    """
    generalized = config.task == "gzsl"
    if not isinstance(split, Split):
        split = dataset.split(split, generalized=generalized)
    if split.generalized != generalized:
        raise ValueError(
            f"split: expected generalized={generalized} for task {config.task!r}, "
            f"got generalized={split.generalized}"
        )
    run_dir = None if run_dir is None else Path(run_dir)
    method = config.recommended_method
    classifier = MCFAClassifier(
        config, method=method, device=device, run_dir=run_dir, progress=progress
    )
    images = dataset.features[split.train], dataset.labels[split.train], dataset.semantics
    classes = {"class_names": dataset.class_names, "unseen_classes": split.unseen_classes}
    if config.selection == "test":
        split.check_testable()
        model = Trainer(config, *images, device=device, run_dir=run_dir, progress=progress).fit()
        monitor = _test_monitor(model, dataset, split)
        classifier.fit_from_model(model, *images, **classes, monitor=monitor)
    else:
        classifier.fit(*images, **classes)

    results = evaluate_methods(classifier, dataset, split)
    if config.selection == "test":
        for method in ("softmax", "ensemble"):  # both use the epoch of the softmax that was chosen
            results[method] = replace(results[method], note=OPTIMISTIC)
    if run_dir is not None:
        classifier.save(run_dir / "classifier.pt")
        _write_results(run_dir, config, classifier, results)
    return results


def evaluate_methods(
    classifier: MCFAClassifier, dataset: Dataset, split: Split
) -> dict[str, Evaluation]:
    """Evaluate a fitted classifier by every method, and leave it with its own.

    Args:
        classifier: fitted on the split's training rows, with the dataset's class indices.
        dataset: where its images and classes come from.
        split: its test rows are evaluated.

    Returns:
        An evaluation per method; nothing if no unseen class of the split has test rows.

    Raises:
        ValueError: see :func:`~mcfa_fast.evaluation.evaluate.evaluate`.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> config = MCFAConfig.paper("zsl", epochs=1, classifier_epochs=1)
        >>> classifier = MCFAClassifier(config).fit(
        ...     digits.features[split.train], digits.labels[split.train], digits.semantics
        ... )
        >>> list(evaluate_methods(classifier, digits, split)), classifier.method
        (['softmax', 'nearest', 'ensemble'], 'softmax')
    """
    if not split.test_unseen.size:
        return {}
    own = classifier.method
    results = {
        method: evaluate(classifier.set_params(method=method), dataset, split) for method in METHODS
    }
    classifier.set_params(method=own)
    return results


def _test_monitor(model: MCFA, dataset: Dataset, split: Split) -> Monitor:
    """What the authors' code selects by: accuracy on the test rows (H if generalized)."""
    rows = np.concatenate([split.test_seen, split.test_unseen])
    labels = dataset.labels[rows]
    latents = encode_means(model, dataset.features[rows])
    of_unseen = np.isin(labels, split.unseen_classes)

    def monitor(epoch: int, heads: ClassifierHeads) -> float:
        classes = heads.softmax_classes
        predictions = classes[heads.scores(latents, classes, "softmax").argmax(dim=1)].numpy()
        unseen = mean_class_accuracy(labels[of_unseen], predictions[of_unseen])
        if not split.generalized:
            return unseen
        seen = mean_class_accuracy(labels[~of_unseen], predictions[~of_unseen])
        return harmonic_mean(seen, unseen)

    return monitor


def _write_results(
    run_dir: Path,
    config: MCFAConfig,
    classifier: MCFAClassifier,
    results: dict[str, Evaluation],
) -> None:
    content = {
        "config": config.model_dump(mode="json"),
        "validation": classifier.validation_ and asdict(classifier.validation_),
        "results": {method: result.to_dict() for method, result in results.items()},
    }
    for method, result in results.items():
        if result.generalized is not None:
            # Thousands of points: a table of their own is of more use than a list in the summary.
            del content["results"][method]["generalized"]["curve"]
            _write_text(run_dir / f"curve_{method}.csv", _curve_csv(result.generalized.curve))
    _write_text(run_dir / "results.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def _curve_csv(curve: SeenUnseenCurve) -> str:
    """One line per interval, with the calibration that it starts at (the first has no start)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["calibration_from", "seen", "unseen"])
    starts = ["-inf", *curve.breakpoints.tolist()]
    writer.writerows(zip(starts, curve.seen.tolist(), curve.unseen.tolist(), strict=True))
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
