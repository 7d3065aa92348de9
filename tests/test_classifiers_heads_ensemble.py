"""The ensemble, its weight, and the rejection of images of unknown classes."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import UNKNOWN, ZeroShotClassifier

HEADS = ("softmax", "nearest", "ensemble")
SEMANTICS = make_semantics()[:NEW]
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST, TEST_LABELS = make_images(np.arange(NEW), rows=10, seed=9)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["zsl", "gzsl"])
def fitted(request, one_thread):
    """A classifier that selection chose everything for, with folds of as many held-out classes as
    there are unseen ones."""
    run = config(request.param, selection="calibration", epochs=15, **{"selection.folds": 5})
    return ZeroShotClassifier(run).fit(IMAGES, LABELS, SEMANTICS)


@pytest.fixture
def classifier(fitted, tmp_path):
    fitted.save(tmp_path / "file")
    return ZeroShotClassifier.load(tmp_path / "file")


@pytest.fixture(params=HEADS)
def head(request):
    return request.param


def scores_of(classifier, head):
    return classifier.with_head(head).decision_function(TEST, calibration=0.0)


# The ensemble


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_ensemble_is_the_logarithmic_pool(classifier, weight):
    log_probabilities, cosines = (scores_of(classifier, h) for h in ("softmax", "nearest"))
    classifier.set_params(weight=weight)
    sharpness = classifier.heads_["ensemble"].sharpness
    pooled = np.exp((1 - weight) * log_probabilities + weight * sharpness * cosines)
    wanted = pooled / pooled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores_of(classifier, "ensemble"), np.log(wanted), atol=1e-5)
    ensemble = classifier.with_head("ensemble").set_params(calibration=0.0)
    np.testing.assert_allclose(ensemble.predict_proba(TEST), wanted, atol=1e-5)


def test_sharpness_gives_both_the_same_spread(classifier):
    """On samples like those it is measured on, drawn anew."""
    heads = classifier.heads_
    samples = heads["softmax"].samples(classifier.table_, torch.Generator().manual_seed(5))
    columns = torch.searchsorted(heads["nearest"].classes, heads["softmax"].classes)
    scores = (
        heads["softmax"].log_probabilities(samples),
        heads["nearest"].similarities(samples)[:, columns],
    )
    spreads = [one.std(dim=1).square().mean().sqrt() for one in scores]
    assert heads["ensemble"].sharpness == pytest.approx(float(spreads[0] / spreads[1]), rel=0.1)


def test_sharpness_of_one_class_is_one():
    run = config("zsl", head="ensemble", epochs=1, **{"softmax.epochs": 1})
    classifier = ZeroShotClassifier(run).fit(IMAGES, LABELS, SEMANTICS, unseen_classes=[11])
    assert classifier.head_.sharpness == 1
    assert set(classifier.predict(TEST)) == {11}


def test_weight_is_selections_unless_given(classifier):
    assert classifier.effective_weight == classifier.selection_.weight
    assert classifier.set_params(weight=0.25).effective_weight == 0.25
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="weight: expected a share in 0..1"):
            classifier.set_params(weight=wrong, head="ensemble").predict(TEST)


def test_weight_is_that_of_the_options_where_nothing_was_chosen():
    run = config("zsl", epochs=1, **{"ensemble.weight": 0.75, "softmax.epochs": 1})
    classifier = ZeroShotClassifier(run).fit(IMAGES, LABELS, SEMANTICS)
    assert classifier.selection_ is None and classifier.effective_weight == 0.75
    without = ZeroShotClassifier("eszsl").fit(IMAGES, LABELS, SEMANTICS)
    assert without.effective_weight is None


# Rejection


def test_rejected_are_the_rows_below_the_threshold(classifier, head):
    classifier = classifier.with_head(head)
    plain, scores = classifier.predict(TEST), classifier.decision_function(TEST).max(axis=1)
    threshold = float(np.quantile(scores, 0.4))
    predictions = classifier.set_params(threshold=threshold).predict(TEST, reject=True)
    assert np.array_equal(predictions, np.where(scores < threshold, UNKNOWN, plain))
    assert 0 < np.mean(predictions == UNKNOWN) < 1
    assert np.array_equal(classifier.predict(TEST), plain)
    assert UNKNOWN not in classifier.set_params(threshold=-1e9).predict(TEST, reject=True)
    assert set(classifier.set_params(threshold=1e9).predict(TEST, reject=True)) == {UNKNOWN}


def test_threshold_is_that_of_the_rate(classifier, head):
    classifier = classifier.with_head(head)
    chosen = classifier.selection_.rejection[head]
    thresholds = []
    for rate in (0.0, 0.05, 0.5, 1.0):
        classifier.set_params(rejection_rate=rate)
        assert classifier.effective_threshold == chosen.threshold(rate)
        thresholds.append(chosen.threshold(rate))
    assert thresholds == sorted(thresholds) and thresholds[0] < thresholds[-1]
    rejected = [
        np.mean(classifier.set_params(rejection_rate=r).predict(TEST, reject=True) == UNKNOWN)
        for r in (0.0, 0.2, 0.9)
    ]
    assert rejected == sorted(rejected) and rejected[-1] > 0.2


def test_rejection_needs_a_threshold():
    run = config("zsl", epochs=1, **{"softmax.epochs": 1})
    classifier = ZeroShotClassifier(run).fit(IMAGES, LABELS, SEMANTICS)
    with pytest.raises(ValueError, match="reject: expected a threshold, or .* got neither"):
        classifier.predict(TEST, reject=True)
    predictions = classifier.set_params(threshold=-1e9).predict(TEST, reject=True)
    assert set(predictions) <= set(UNSEEN.tolist())


def test_saved_choices_are_the_same(fitted, tmp_path):
    given = fitted.with_head("nearest").set_params(weight=0.125, rejection_rate=0.25)
    given.save(tmp_path / "file")
    loaded = ZeroShotClassifier.load(tmp_path / "file")
    assert (loaded.head, loaded.weight, loaded.rejection_rate) == ("nearest", 0.125, 0.25)
    assert loaded.threshold is None
    assert loaded.selection_ == fitted.selection_
