"""The score of one configuration of MCFA: the mean over trainings on folds of seen classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.selection.outcome import FoldOutcome, combine, fold_outcome
from mcfa_fast.classifiers.classifier_old import MCFAClassifier
from mcfa_fast.classifiers.heads_old import Method
from mcfa_fast.experiments.compare import load_once
from mcfa_fast.selection.folds_old import selection_folds

__all__ = ["FoldRun", "FoldTraining", "Part", "TrialScore", "parts_of"]


class Part(NamedTuple):
    """One training of the several that score a configuration: a fold of a split, with a seed."""

    split: str
    seed: int
    fold: int


class FoldRun(NamedTuple):
    """A job for a worker: part number `step` of a trial, and the options that the trial tries."""

    trial: int
    step: int
    part: Part
    options: Mapping[str, Any]


@dataclass(frozen=True)
class FoldTraining:
    """The work of one job: train on a fold, and test on the classes held out. It can be pickled.

    Attributes:
        base: options that are the same in all trials.
        data, features, semantics: what :func:`mcfa_fast.data.load` is given.
        folds: number of folds.
        method: which classifier is tested.
        device: where to train.
    """

    base: MCFAConfig
    data: str
    features: str | None
    semantics: str | None
    folds: int
    method: Method
    device: str = "cpu"

    def __call__(self, run: FoldRun) -> FoldOutcome:
        """The outcome; None when the training diverges."""
        dataset = load_once(self.data, self.features, self.semantics)
        config = self.config(run.options, run.part.seed)
        generalized = config.task == "gzsl"
        rows = dataset.split(run.part.split, generalized=generalized).train
        fold = selection_folds(
            dataset.labels[rows], self.folds, generalized=generalized, seed=run.part.seed
        )[run.part.fold]
        if config.selection == "folds":
            config = config.replace(selection="last")  # this fold's curve needs no calibration
        classifier = MCFAClassifier(config, method=self.method, device=self.device)
        try:
            classifier.fit(
                dataset.features[rows[fold.train]],
                fold.labels[fold.train],
                dataset.semantics[fold.classes],
            )
        except FloatingPointError:
            return None
        scores = classifier.decision_function(
            dataset.features[rows[fold.test]], candidates=fold.candidates, calibration=0.0
        )
        return fold_outcome(scores, fold)

    def config(self, options: Mapping[str, Any], seed: int) -> MCFAConfig:
        """The configuration of a trial."""
        return self.base.replace(seed=seed, **options)


class TrialScore:
    """The outcomes of one configuration, in whatever order they come.

    Args:
        parts: what they are outcomes of.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._outcomes: dict[int, FoldOutcome] = {}
        self._reported = 0

    def add(self, step: int, outcome: FoldOutcome) -> list[tuple[int, float]]:
        """Count the outcome of part number `step`.

        Returns:
            For every step before which now nothing is missing any more: its number, and the score
            of all parts up to it.
        """
        self._outcomes[step] = outcome
        first = self._reported
        while self._reported in self._outcomes:
            self._reported += 1
        return [(k, self.value(k + 1)) for k in range(first, self._reported)]

    @property
    def count(self) -> int:
        """Number of outcomes so far."""
        return len(self._outcomes)

    @property
    def complete(self) -> bool:
        """Whether no outcome is missing."""
        return self.count == len(self._parts)

    def value(self, parts: int | None = None) -> float:
        """Mean score over splits and seeds, of the first `parts` outcomes (None: of all)."""
        return float(np.mean([score for _, _, score in self._groups(parts)]))

    def splits(self) -> dict[str, tuple[float, float | None]]:
        """Per split: score and calibration (None for task "zsl"), as means over seeds."""
        table: dict[str, list[tuple[float, float | None]]] = {}
        for split, calibration, score in self._groups():
            table.setdefault(split, []).append((score, calibration))
        return {
            split: tuple(None if None in column else float(np.mean(column)) for column in columns)
            for split, columns in (
                (s, list(zip(*pairs, strict=True))) for s, pairs in table.items()
            )
        }

    def _groups(self, parts: int | None = None) -> list[tuple[str, float | None, float]]:
        """Split, calibration and score of every split and seed, each over its folds."""
        groups: dict[tuple[str, int], list[FoldOutcome]] = {}
        for step, part in enumerate(self._parts[:parts]):
            groups.setdefault((part.split, part.seed), []).append(self._outcomes[step])
        return [(split, *combine(outcomes)) for (split, _), outcomes in groups.items()]


def parts_of(
    dataset: Dataset, splits: Sequence[str], seeds: Sequence[int], folds: int, *, generalized: bool
) -> tuple[list[Part], int]:
    """Every part, and the lowest number of classes that one of them trains on.

    The first folds of all splits and seeds come first, so that early means cover all of them.

    Raises:
        ValueError: when a split has too few seen classes.
    """
    parts, fewest = [], len(dataset.class_names)
    for split in splits:
        labels = dataset.labels[dataset.split(split, generalized=generalized).train]
        for seed in seeds:
            for k, fold in enumerate(
                selection_folds(labels, folds, generalized=generalized, seed=seed)
            ):
                parts.append(Part(split, seed, k))
                fewest = min(fewest, len(fold.classes) - len(fold.held_out))
    return sorted(parts, key=lambda part: part.fold), fewest
