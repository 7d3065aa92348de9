"""Evaluation of a fitted classifier on the test rows of a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from mcfa_fast.data.chunks import row_chunks
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation.curve import OperatingPoint, SeenUnseenCurve, seen_unseen_curve
from mcfa_fast.evaluation.metrics import (
    ClassResult,
    class_table,
    confusion,
    harmonic_mean,
    mean_class_accuracy,
)

__all__ = ["Evaluable", "Evaluation", "GeneralizedResult", "evaluate"]

_VALUES_PER_CHUNK = 2**24  # features of a chunk


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str:
        """Its name."""


class Evaluable(Protocol):
    """What is asked of a fitted classifier, a ``ZeroShotClassifier`` above all."""

    @property
    def is_transductive(self) -> bool:
        """Whether answers about an image depend on the others that are asked about with it."""

    @property
    def head_(self) -> Named:
        """The head that answers."""

    @property
    def effective_calibration(self) -> float:
        """What is subtracted from the scores of seen classes."""

    def decision_function(
        self, features: Any, *, candidates: np.ndarray, calibration: float
    ) -> np.ndarray:
        """Scores [N, K] of raw features [N, F] for class indices [K], less the calibration.

        Features are an array or, for one that is transductive,
        :class:`~mcfa_fast.data.features.FeatureRows`."""


@dataclass(frozen=True, eq=False)
class GeneralizedResult:
    """Accuracies with all classes as candidates, each a mean over classes in 0..1.

    Attributes:
        calibration: what was subtracted from the scores of seen classes.
        seen: accuracy S on test images of seen classes.
        unseen: accuracy U on images of unseen classes.
        harmonic: their harmonic mean H.
        chance: what guessing among all classes gives, for each of the three.
        ausuc: area under the seen-unseen curve; does not depend on the calibration.
        best: point of the curve with the highest harmonic mean. It is chosen on the test rows, so
            it tells what a calibration could reach, not what the classifier does.
        curve: the whole curve.
    """

    calibration: float
    seen: float
    unseen: float
    harmonic: float
    chance: float
    ausuc: float
    best: OperatingPoint
    curve: SeenUnseenCurve


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of one classifier on one split.

    Attributes:
        dataset, split, head: what was evaluated.
        accuracy: mean per-class accuracy in 0..1 on images of unseen classes with only these
            classes as candidates (the zero-shot accuracy), also for a generalized split.
        chance: what guessing among these classes gives.
        generalized: the results with all classes as candidates; None for another split.
        classes: per-class results, of the unseen classes among themselves or, for a generalized
            split, of all classes among all.
        confusion: counts [K, K] in the order of `classes`; rows are true classes.
        note: a caveat to print beside the results, such as that they are optimistic.
        mode: "transductive" where images were classified together, else "inductive". The two
            answer different questions and belong into different tables.
    """

    dataset: str
    split: str
    head: str
    accuracy: float
    chance: float
    generalized: GeneralizedResult | None
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray
    note: str = ""
    mode: str = "inductive"

    @property
    def headline(self) -> float:
        """The number that such results are compared by: H, or the zero-shot accuracy."""
        return self.accuracy if self.generalized is None else self.generalized.harmonic

    def __str__(self) -> str:
        mode = "" if self.mode == "inductive" else f" {self.mode}"
        text = f"{self.dataset} {self.split} {self.head}{mode}: ZSL {self.accuracy:.1%}"
        if self.generalized is not None:
            result = self.generalized
            text += (
                f", S {result.seen:.1%}, U {result.unseen:.1%}, H {result.harmonic:.1%}"
                f", AUSUC {result.ausuc:.1%}"
            )
        return f"{text} ({self.note})" if self.note else text

    def to_dict(self) -> dict[str, Any]:
        """The results as plain values, ready for ``json.dump``; the curve as three lists."""
        content = asdict(self)
        content["confusion"] = self.confusion.tolist()
        for row, result in zip(content["classes"], self.classes, strict=True):
            row["accuracy"] = result.accuracy
        if self.generalized is not None:
            content["generalized"]["best"] = self.generalized.best._asdict()
            for name, values in content["generalized"]["curve"].items():
                content["generalized"]["curve"][name] = values.tolist()
        return content


def evaluate(classifier: Evaluable, dataset: Dataset, split: Split) -> Evaluation:
    """Evaluate a fitted classifier with its current `head` and `calibration`.

    The candidates are the split's classes: the unseen ones or, if it is generalized, all of them.
    Accuracies are means over the classes that have test rows.

    A transductive classifier (see ``ZeroShotClassifier.transductive``) gets all test images as one
    set; for the zero-shot accuracy of a generalized split, those of unseen classes as another.

    Args:
        classifier: fitted on the split's training rows, with the dataset's class indices.
        dataset: features, labels and class names.
        split: its test rows are evaluated.

    Raises:
        ValueError: when the classifier's classes or features are not those of the dataset, it was
            trained for task "zsl" with head "softmax" and the split is generalized, or no unseen
            class of the split has test rows.

    Example:
        >>> from mcfa_fast import data
        >>> from mcfa_fast.classifiers import ZeroShotClassifier
        >>> digits = data.load("digits")
        >>> split = digits.split("7/3:0", generalized=False)
        >>> classifier = ZeroShotClassifier("eszsl")
        >>> rows = split.train
        >>> _ = classifier.fit(digits.features[rows], digits.labels[rows], digits.semantics)
        >>> result = evaluate(classifier, digits, split)
        >>> [row.name for row in result.classes], result.confusion.sum().item()
        (['3', '4', '8'], 538)
    """
    split.check_testable()
    unseen = split.unseen_classes
    candidates = np.union1d(split.seen_classes, unseen) if split.generalized else unseen
    rows = np.concatenate([split.test_seen, split.test_unseen])
    labels = dataset.labels[rows]
    scores = _scores(classifier, dataset, rows, candidates)
    of_unseen = np.isin(labels, unseen)
    if classifier.is_transductive and split.generalized:
        among_unseen = _scores(classifier, dataset, rows[of_unseen], unseen).argmax(axis=1)
    else:
        among_unseen = scores[of_unseen][:, np.isin(candidates, unseen)].argmax(axis=1)
    calibration = classifier.effective_calibration if split.generalized else 0.0
    biased = scores - calibration * np.isin(candidates, split.seen_classes)
    predictions = candidates[biased.argmax(axis=1)]
    matrix = confusion(labels, predictions, candidates)
    return Evaluation(
        dataset=dataset.name,
        split=split.name,
        head=classifier.head_.name,
        accuracy=mean_class_accuracy(labels[of_unseen], unseen[among_unseen]),
        chance=1 / len(unseen),
        generalized=_generalized(scores, labels, predictions, candidates, split, calibration)
        if split.generalized
        else None,
        classes=class_table(matrix, candidates, dataset.class_names),
        confusion=matrix,
        mode="transductive" if classifier.is_transductive else "inductive",
    )


def _scores(
    classifier: Evaluable, dataset: Dataset, rows: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Uncalibrated scores [N, K] of rows of the dataset."""
    if classifier.is_transductive:
        features: Any = dataset.rows(rows)
        return classifier.decision_function(features, candidates=candidates, calibration=0.0)
    size = max(1, _VALUES_PER_CHUNK // dataset.features.shape[1])
    return np.concatenate(
        [
            classifier.decision_function(
                dataset.features[rows[chunk]],
                candidates=candidates,
                calibration=0.0,
            )
            for chunk in row_chunks(len(rows), size)
        ]
    )


def _generalized(
    scores: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    candidates: np.ndarray,
    split: Split,
    calibration: float,
) -> GeneralizedResult:
    of_seen = np.isin(labels, split.seen_classes)
    seen = mean_class_accuracy(labels[of_seen], predictions[of_seen])
    unseen = mean_class_accuracy(labels[~of_seen], predictions[~of_seen])
    curve = seen_unseen_curve(scores, labels, candidates, split.seen_classes)
    return GeneralizedResult(
        calibration=float(calibration),
        seen=seen,
        unseen=unseen,
        harmonic=harmonic_mean(seen, unseen),
        chance=1 / len(candidates),
        ausuc=curve.area,
        best=curve.best(),
        curve=curve,
    )
