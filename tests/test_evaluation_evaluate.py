"""Evaluation against counting, with a classifier whose scores are known."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from mcfa_fast.data import Dataset
from mcfa_fast.data.splits import Split
from mcfa_fast.evaluation import evaluate, harmonic_mean, seen_unseen_curve

SEEN, UNSEEN = np.array([0, 2, 5]), np.array([1, 4])  # class 3 takes no part
NAMES = ("airport", "beach", "church", "desert", "farm", "forest")


class KnownScores:
    """A classifier whose scores are the features: column c is the score of class c."""

    head_ = SimpleNamespace(name="softmax")
    is_transductive = False

    def __init__(self, calibration=0.0):
        self.effective_calibration = calibration

    def decision_function(self, features, *, candidates, calibration):
        assert calibration == 0
        self.most_rows = max(getattr(self, "most_rows", 0), len(features))
        return features[:, candidates].astype(np.float64)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=150)
    scores = rng.normal(size=(150, 6)) + 1.5 * (labels[:, None] == np.arange(6))
    return Dataset("known", scores, labels, NAMES, semantics=np.eye(6))


def make_split(dataset, generalized):
    rows_of = {c: np.flatnonzero(dataset.labels == c) for c in range(6)}
    return Split(
        name="3/2",
        generalized=generalized,
        seen_classes=SEEN,
        unseen_classes=UNSEEN,
        train=np.concatenate([rows_of[c][:5] for c in SEEN]),
        test_seen=np.concatenate([rows_of[c][5:] for c in SEEN])
        if generalized
        else np.empty(0, np.int64),
        test_unseen=np.concatenate([rows_of[c] for c in UNSEEN]),
    )


def counted(dataset, rows, candidates, calibration=0.0):
    """Per-class accuracies of the rows' classes, one row and one candidate at a time."""
    hits = {}
    for row in rows:
        stacked = {
            c: dataset.features[row, c] - (calibration if c in SEEN else 0) for c in candidates
        }
        label = int(dataset.labels[row])
        hits.setdefault(label, []).append(max(stacked, key=stacked.get) == label)
    return {label: np.mean(values) for label, values in hits.items()}


def mean(accuracies):
    return pytest.approx(np.mean(list(accuracies.values())))


def test_conventional_split(dataset):
    split = make_split(dataset, generalized=False)
    result = evaluate(KnownScores(calibration=5.0), dataset, split)
    wanted = counted(dataset, split.test_unseen, UNSEEN)
    assert result.accuracy == result.headline == mean(wanted)
    assert (result.head, result.chance, result.generalized) == ("softmax", 1 / 2, None)
    assert [(row.index, row.name) for row in result.classes] == [(1, "beach"), (4, "farm")]
    assert [row.accuracy for row in result.classes] == [wanted[1], wanted[4]]
    assert result.confusion.shape == (2, 2) and result.confusion.sum() == len(split.test_unseen)


@pytest.mark.parametrize("calibration", [0.0, 0.8])
def test_generalized_split(dataset, calibration):
    split = make_split(dataset, generalized=True)
    every = sorted([*SEEN, *UNSEEN])
    result = evaluate(KnownScores(calibration), dataset, split)
    assert result.accuracy == mean(counted(dataset, split.test_unseen, UNSEEN))
    seen = counted(dataset, split.test_seen, every, calibration)
    unseen = counted(dataset, split.test_unseen, every, calibration)
    outcome = result.generalized
    assert (outcome.seen, outcome.unseen) == (mean(seen), mean(unseen))
    assert result.headline == outcome.harmonic == harmonic_mean(outcome.seen, outcome.unseen)
    assert (outcome.calibration, outcome.chance) == (calibration, 1 / 5)
    assert outcome.curve.at(calibration)[1:3] == pytest.approx((outcome.seen, outcome.unseen))
    assert {row.index: row.accuracy for row in result.classes} == {**seen, **unseen}
    assert np.diag(result.confusion).tolist() == [row.correct for row in result.classes]
    rows = np.concatenate([split.test_seen, split.test_unseen])
    curve = seen_unseen_curve(dataset.features[rows][:, every], dataset.labels[rows], every, SEEN)
    assert (outcome.ausuc, outcome.best) == (curve.area, curve.best())


def test_unseen_classes_without_rows_are_candidates_but_not_in_the_means(dataset):
    split = make_split(dataset, generalized=True)
    rows = split.test_unseen[dataset.labels[split.test_unseen] == 1]
    result = evaluate(KnownScores(), dataset, dataclasses.replace(split, test_unseen=rows))
    assert result.accuracy == counted(dataset, rows, UNSEEN)[1]
    assert result.generalized.unseen == counted(dataset, rows, sorted([*SEEN, *UNSEEN]))[1]
    assert [row.accuracy is None for row in result.classes] == [False] * 3 + [True, False]
    with pytest.raises(ValueError, match="none of its 2 unseen classes has test rows"):
        evaluate(KnownScores(), dataset, dataclasses.replace(split, test_unseen=rows[:0]))


def test_rows_in_chunks_give_the_same(dataset, monkeypatch):
    split = make_split(dataset, generalized=True)
    whole = evaluate(KnownScores(), dataset, split)
    classifier = KnownScores()
    monkeypatch.setitem(evaluate.__globals__, "_VALUES_PER_CHUNK", 7 * dataset.features.shape[1])
    assert json.dumps(evaluate(classifier, dataset, split).to_dict()) == json.dumps(whole.to_dict())
    assert classifier.most_rows == 7


@pytest.mark.parametrize("generalized", [False, True])
def test_survives_json(dataset, generalized):
    result = evaluate(KnownScores(), dataset, make_split(dataset, generalized))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["accuracy"] == result.accuracy
    assert content["confusion"] == result.confusion.tolist()
    assert content["classes"][0]["accuracy"] == result.classes[0].accuracy
    if generalized:
        outcome = content["generalized"]
        assert outcome["best"]["harmonic"] == result.generalized.best.harmonic
        assert outcome["curve"]["seen"] == result.generalized.curve.seen.tolist()


def test_text_has_the_numbers_and_the_note(dataset):
    result = evaluate(KnownScores(), dataset, make_split(dataset, generalized=True))
    text = str(dataclasses.replace(result, note="optimistic"))
    assert f"H {result.headline:.1%}" in text and text.endswith("(optimistic)")
