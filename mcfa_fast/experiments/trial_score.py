"""The score of one configuration of a run: the mean over trainings on folds of seen classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.selecting import fold_scores
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.inputs import training_data
from mcfa_fast.evaluation.curve import SeenUnseenCurve
from mcfa_fast.experiments.compare import load_once
from mcfa_fast.selection.folds import ClassFold, FoldOutcome, combine, fold_outcome, selection_folds

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
        base: the run; trials change options of it, and its head is tested.
        data, features, semantics: what :func:`mcfa_fast.data.load` is given.
        device: where to train.
    """

    base: RunConfig
    data: str
    features: str | None
    semantics: str | None
    device: str = "cpu"

    def __call__(self, run: FoldRun) -> FoldOutcome:
        """The outcome; None when the training diverges."""
        dataset = load_once(self.data, self.features, self.semantics)
        config = self.config(run.options, run.part.seed)
        split = dataset.split(run.part.split, generalized=config.task == "gzsl")
        labels = dataset.labels[split.train]
        data = training_data(
            dataset.rows(split.train),
            labels,
            dataset.semantics,
            dataset.class_names,
            split.unseen_classes,
        )
        fold = _folds(labels, config)[run.part.fold]
        (scores,) = fold_scores(config, data, fold, [{}], self.device)
        return fold_outcome(scores, fold)

    def config(self, options: Mapping[str, Any], seed: int) -> RunConfig:
        """The configuration of a trial."""
        return self.base.replace(options).with_arguments(seed=seed)


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
        groups = self._groups(parts).values()
        return float(np.mean([combine(outcomes)[1] for outcomes in groups]))

    def splits(self) -> dict[str, tuple[float, float | None]]:
        """Per split: score and calibration (None for task "zsl"), as means over seeds."""
        table: dict[str, list[tuple[float, float | None]]] = {}
        for (split, _), outcomes in self._groups().items():
            calibration, score = combine(outcomes)
            table.setdefault(split, []).append((score, calibration))
        means = {}
        for split, pairs in table.items():
            calibrations = [calibration for _, calibration in pairs if calibration is not None]
            score = float(np.mean([score for score, _ in pairs]))
            known = len(calibrations) == len(pairs)
            means[split] = score, float(np.mean(calibrations)) if known else None
        return means

    def folds(self) -> list[float]:
        """The score of every fold, with the calibration that all folds of its split share."""
        return [
            _score(outcome, calibration)
            for outcomes in self._groups().values()
            for calibration in [combine(outcomes)[0]]
            for outcome in outcomes
        ]

    def _groups(self, parts: int | None = None) -> dict[tuple[str, int], list[FoldOutcome]]:
        """The outcomes of every split and seed."""
        groups: dict[tuple[str, int], list[FoldOutcome]] = {}
        for step, part in enumerate(self._parts[:parts]):
            groups.setdefault((part.split, part.seed), []).append(self._outcomes[step])
        return groups


def parts_of(
    dataset: Dataset, splits: Sequence[str], seeds: Sequence[int], config: RunConfig
) -> tuple[list[Part], list[ClassFold]]:
    """Every part with its fold, by the run's number of folds.

    The first folds of all splits and seeds come first, so that early means cover all of them.

    Raises:
        ValueError: when a split has too few seen classes.
    """
    found = []
    for split in splits:
        labels = dataset.labels[dataset.split(split, generalized=config.task == "gzsl").train]
        for seed in seeds:
            folds = _folds(labels, config.with_arguments(seed=seed))
            found += [(Part(split, seed, number), fold) for number, fold in enumerate(folds)]
    found.sort(key=lambda pair: pair[0].fold)
    return [part for part, _ in found], [fold for _, fold in found]


def _folds(labels: np.ndarray, config: RunConfig) -> list[ClassFold]:
    """The folds on which every system with this seed is judged."""
    return selection_folds(
        labels,
        config.selection.folds,
        generalized=config.task == "gzsl",
        seed=config.options.seed,
    )


def _score(outcome: FoldOutcome, calibration: float | None) -> float:
    """Of a fold that did not diverge."""
    if isinstance(outcome, SeenUnseenCurve):
        assert calibration is not None, "curves have a calibration"
        return outcome.at(calibration).harmonic
    assert outcome is not None, "asked for when no fold has diverged"
    return outcome
