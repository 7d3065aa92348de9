"""A whole run: train on a split's seen classes, classify its test images, write it down."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.heads import HEADS
from mcfa_fast.classifiers.heads.base import Monitor
from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation.curve import SeenUnseenCurve
from mcfa_fast.evaluation.evaluate import Evaluation, evaluate
from mcfa_fast.evaluation.metrics import harmonic_mean, mean_class_accuracy
from mcfa_fast.evaluation.warnings import ResultWarning, warnings_of
from mcfa_fast.storage.atomic import write_text
from mcfa_fast.training.ranks import World

__all__ = ["OPTIMISTIC", "evaluate_heads", "run"]

OPTIMISTIC = "optimistic: best test epoch"
"""The note of results whose epoch was chosen on the test rows that they are of."""


def run(
    config: RunConfig,
    dataset: Dataset,
    split: Split | str | None = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
    group: dist.ProcessGroup | None = None,
) -> dict[str, Evaluation]:
    """Train a system and fit its heads on a split, and evaluate every head on its test rows.

    With `run_dir`, a killed run resumes there, and the folder ends up with the files of the
    training (identity, checkpoint, metrics), ``selection.json`` if something was chosen,
    ``run.json``, the run as it was trained, ``classifier.pt`` for
    :meth:`~mcfa_fast.classifiers.zero_shot.ZeroShotClassifier.load`, ``results.json`` and, for a
    generalized task, the curves as ``curve_HEAD.csv``. With the option
    ``selection.transductive``, ``results.json`` has results of the test images classified together
    as well, under a name of their own, "transductive". A run in the same folder with other options
    of heads or of selection does not train again: the heads are fitted anew.

    Test rows are used for the final evaluation only. The one exception is the selection rule
    "test" of reference presets: it keeps the epoch of the softmax head that is best on the test
    rows, as the authors' code does, and results of heads that depend on it carry the note
    "optimistic: best test epoch".

    Warns:
        ResultWarning: of results that ought not to be relied on, see
            :func:`~mcfa_fast.evaluation.warnings.warnings_of`.

    Args:
        config: what to train; its task decides whether the split is a generalized one.
        dataset: the data; features of a memory-mapped file are read batch by batch.
        split: a split of it or the name of one; None is its first.
        fixed: options, of the values they have in `config`, that selection may not change.
        run_dir: folder of the run; None writes nothing.
        device: where to compute.
        progress: show progress bars.
        group: processes that train together, each calling this with the same arguments; rank 0
            alone evaluates and writes.

    Returns:
        An :class:`~mcfa_fast.evaluation.evaluate.Evaluation` per head. Nothing if no unseen class
        of the split has test rows, and nothing on ranks other than 0.

    Raises:
        ValueError: when the split does not suit the task, or lacks the test rows that rule "test"
            needs, or `run_dir` holds another run.

    Example:
        >>> from mcfa_fast import data
        >>> config = RunConfig.of("dual-encoder", task="gzsl", options={"epochs": 1})
        >>> results = run(config, data.load("digits"), "7/3:0")
        >>> list(results), results["nearest"].split
        (['nearest'], '7/3:0')
    """
    generalized = config.task == "gzsl"
    if not isinstance(split, Split):
        split = dataset.split(split, generalized=generalized)
    if split.generalized != generalized:
        raise ValueError(
            f"split: expected generalized={generalized} for task {config.task!r}, "
            f"got generalized={split.generalized}"
        )
    classifier = ZeroShotClassifier(
        config, task=config.task, options=fixed, device=device, run_dir=run_dir, progress=progress
    )
    classifier.fit(
        dataset.rows(split.train),
        dataset.labels[split.train],
        dataset.semantics,
        class_names=dataset.class_names,
        unseen_classes=split.unseen_classes,
        monitor=_monitor(config, dataset, split),
        group=group,
    )
    if not World(group).first:
        return {}
    results = evaluate_heads(classifier, dataset, split)
    if run_dir is not None:
        together = {}
        if config.selection.transductive:
            together = evaluate_heads(classifier, dataset, split, transductive=True)
        _write(Path(run_dir), classifier, results, together)
    for head, result in results.items():
        for sentence in warnings_of(result):
            warnings.warn(f"{config.system}, {head}: {sentence}", ResultWarning, stacklevel=2)
    return results


def evaluate_heads(
    classifier: ZeroShotClassifier,
    dataset: Dataset,
    split: Split,
    *,
    transductive: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate a fitted classifier with each of its heads.

    Args:
        classifier: fitted on the split's training rows, with the dataset's class indices.
        dataset: where its images and classes come from.
        split: its test rows are evaluated.
        transductive: all test images together, with the split's training images as labelled ones.
        progress: called with numbers of images, see ``ZeroShotClassifier.transductive``.

    Returns:
        An evaluation per head; nothing if no unseen class of the split has test rows. Heads whose
        epoch was chosen on test rows have the note :data:`OPTIMISTIC`.

    Raises:
        ValueError: see :func:`~mcfa_fast.evaluation.evaluate.evaluate`.

    Example:
        >>> from mcfa_fast import data
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> images = digits.rows(split.train), digits.labels[split.train], digits.semantics
        >>> classifier = ZeroShotClassifier("eszsl").fit(*images)
        >>> list(evaluate_heads(classifier, digits, split))
        ['scores']
    """
    if not split.test_unseen.size:
        return {}
    of_test = classifier.run_.selection.rule == "test"
    results = {}
    for name in classifier.heads_:
        view = classifier.with_head(name)
        if transductive:
            images = dataset.rows(split.train), dataset.labels[split.train]
            result = evaluate(view.transductive(*images, progress=progress), dataset, split)
        else:
            result = evaluate(view, dataset, split)
        optimistic = of_test and "softmax" in (name, *HEADS[name].needs)
        results[name] = replace(result, note=OPTIMISTIC) if optimistic else result
    return results


def _monitor(config: RunConfig, dataset: Dataset, split: Split) -> Monitor | None:
    """What the authors' code selects by: accuracy on the test rows (H if generalized)."""
    if config.selection.rule != "test":
        return None
    split.check_testable()
    rows = np.concatenate([split.test_seen, split.test_unseen])
    labels = dataset.labels[rows]
    of_unseen = np.isin(labels, split.unseen_classes)
    embedded: list[Tensor] = []  # by the system, which is the same in all epochs

    def monitor(epoch: int, head: Any) -> float:  # the softmax head
        embedded.extend([] if embedded else map(head.system.embed, dataset.rows(rows).chunks()))
        columns = [head.log_probabilities(part).argmax(dim=1) for part in embedded]
        predictions = head.classes[torch.cat(columns)].numpy()
        unseen = mean_class_accuracy(labels[of_unseen], predictions[of_unseen])
        if not split.generalized:
            return unseen
        seen = mean_class_accuracy(labels[~of_unseen], predictions[~of_unseen])
        return harmonic_mean(seen, unseen)

    return monitor


def _write(
    run_dir: Path,
    classifier: ZeroShotClassifier,
    results: dict[str, Evaluation],
    transductive: dict[str, Evaluation],
) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)  # a closed form keeps nothing of its own there
    config, selection = classifier.run_, classifier.selection_
    write_text(run_dir / "run.json", config.model_dump_json(indent=2) + "\n")
    classifier.save(run_dir / "classifier.pt")
    content: dict[str, Any] = {
        "run": config.model_dump(mode="json"),
        "selection": selection and selection.to_dict(),
        "results": {head: result.to_dict() for head, result in results.items()},
        "transductive": {head: result.to_dict() for head, result in transductive.items()},
    }
    for result in content["transductive"].values():
        if result["generalized"] is not None:
            del result["generalized"]["curve"]
    for head, result in results.items():
        if result.generalized is not None:
            # Thousands of points: a table of their own is of more use than a list in the summary.
            del content["results"][head]["generalized"]["curve"]
            write_text(run_dir / f"curve_{head}.csv", _curve_csv(result.generalized.curve))
    write_text(run_dir / "results.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def _curve_csv(curve: SeenUnseenCurve) -> str:
    """One line per interval, with the calibration that it starts at (the first has no start)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["calibration_from", "seen", "unseen"])
    starts = ["-inf", *curve.breakpoints.tolist()]
    writer.writerows(zip(starts, curve.seen.tolist(), curve.unseen.tolist(), strict=True))
    return text.getvalue()
