"""The ensemble, its weight, and the rejection of images of unknown classes."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast.evaluation import harmonic_mean
from mcfa_fast.inference import (
    UNKNOWN,
    ClassifierHeads,
    MCFAClassifier,
    Rejection,
    encode_means,
    heads,
)
from mcfa_fast.selection.rejection import HeldOutScores

SEMANTICS = make_semantics()[:NEW]
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST, TEST_LABELS = make_images(np.arange(NEW), rows=10, seed=9)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["zsl", "gzsl"])
def fitted(request, one_thread):
    """A classifier that validation chose everything for."""
    settings = config(request.param, selection="validation", epochs=15)
    return MCFAClassifier(settings).fit(IMAGES, LABELS, SEMANTICS)


@pytest.fixture
def classifier(fitted, tmp_path):
    fitted.save(tmp_path / "file")
    return MCFAClassifier.load(tmp_path / "file")


def scores_of(classifier, method):
    return classifier.set_params(method=method).decision_function(TEST, calibration=0.0)


def held_out(rows=200, classes=4, generalized=False, seed=0, **changes):
    """Random scores in which the right class is somewhat higher."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    right = np.eye(classes)[labels]
    logits = torch.from_numpy(rng.normal(size=(rows, classes)) + 1.5 * right)
    cosines = torch.from_numpy(0.2 * rng.normal(size=(rows, classes)) + 0.2 * right)
    options = {
        "log_probabilities": logits.log_softmax(dim=1),
        "cosines": cosines,
        "sharpness": 5.0,
        "labels": labels,
        "classes": np.arange(classes),
        "seen_classes": np.arange(classes // 2) if generalized else np.arange(0),
        "generalized": generalized,
    }
    return HeldOutScores(**{**options, **changes})


# The ensemble


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_ensemble_is_the_logarithmic_pool(classifier, weight):
    log_probabilities, cosines = (scores_of(classifier, m) for m in ("softmax", "nearest"))
    classifier.set_params(weight=weight)
    sharpness = classifier.heads_.sharpness
    pooled = np.exp((1 - weight) * log_probabilities + weight * sharpness * cosines)
    wanted = pooled / pooled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores_of(classifier, "ensemble"), np.log(wanted), atol=1e-5)
    probabilities = classifier.set_params(calibration=0.0).predict_proba(TEST)
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)


def test_sharpness_gives_both_the_same_spread(classifier):
    """On latents like those it is measured on, drawn anew."""
    model = classifier.heads_.model
    latents, _ = classifier.heads_._bank().draw(model, torch.Generator().manual_seed(5))
    spreads = [
        classifier.heads_.scores(latents, classifier.heads_.softmax_classes, method).std(dim=1)
        for method in ("softmax", "nearest")
    ]
    ratio = spreads[0].square().mean().sqrt() / spreads[1].square().mean().sqrt()
    assert classifier.heads_.sharpness == pytest.approx(float(ratio), rel=0.1)


def test_sharpness_of_one_class_is_one():
    classifier = MCFAClassifier(config("zsl", epochs=1, classifier_epochs=1), method="ensemble")
    classifier.fit(IMAGES, LABELS, SEMANTICS, unseen_classes=[11])
    assert classifier.heads_.sharpness == 1
    assert set(classifier.predict(TEST)) == {11}


def test_weight_is_validations_unless_given(classifier):
    assert classifier.effective_weight == classifier.validation_.weight
    assert classifier.set_params(weight=0.25).effective_weight == 0.25
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="weight: expected a share in 0..1"):
            classifier.set_params(weight=wrong, method="ensemble").predict(TEST)


@pytest.mark.parametrize("generalized", [False, True])
def test_chosen_weight_is_the_best_of_all(generalized):
    scores = held_out(generalized=generalized)

    def quality(weight):
        mixed = ((1 - weight) * scores.log_probabilities + weight * 5.0 * scores.cosines).numpy()

        def accuracy(of, predictions):
            hits = predictions == scores.labels
            return np.mean([hits[scores.labels == c].mean() for c in of])

        if not generalized:
            return accuracy(range(4), mixed.argmax(axis=1))
        points = []
        for calibration in np.linspace(-6, 6, 601):
            predictions = (mixed - calibration * np.isin(np.arange(4), [0, 1])).argmax(axis=1)
            points.append(
                harmonic_mean(accuracy([0, 1], predictions), accuracy([2, 3], predictions))
            )
        return max(points)

    chosen = scores.choose_weight()
    assert 0 < chosen < 1  # both are noisy, independently
    assert quality(chosen) >= max(quality(weight) for weight in np.linspace(0, 1, 11)) - 0.02


def test_useless_classifiers_get_no_weight():
    good = held_out()
    noise = torch.from_numpy(np.random.default_rng(7).normal(size=good.cosines.shape))
    assert held_out(cosines=10 * noise).choose_weight() == 0.0
    assert held_out(log_probabilities=10 * noise).choose_weight() == 1.0


def test_equal_weights_choose_the_middle():
    scores = held_out()
    assert held_out(cosines=scores.log_probabilities / 5.0).choose_weight() == 0.5


# Prototypes of images


@pytest.mark.parametrize("fitted", ["gzsl"], indirect=True)
def test_image_prototypes_are_second_vectors_of_seen_classes(fitted):
    own = fitted.heads_
    bank = own._seen_bank
    means = torch.stack([bank.mean[bank.labels == c].double().mean(dim=0) for c in SEEN])
    latents = encode_means(own.model, TEST).double()
    unit = [part / part.norm(dim=1, keepdim=True) for part in (latents, means)]
    wanted = scores_of(fitted, "nearest")
    wanted[:, SEEN] = np.maximum(wanted[:, SEEN], (unit[0] @ unit[1].T).numpy())
    changed = ClassifierHeads.from_state(own.state(), "cpu")
    changed.model.config = own.model.config.replace(image_prototypes=True)
    scores = changed.scores(latents.float(), torch.arange(NEW), "nearest")
    np.testing.assert_allclose(scores.numpy(), wanted, atol=1e-5)
    assert not np.allclose(scores.numpy(), scores_of(fitted, "nearest"), atol=1e-3)


# Rejection


@pytest.mark.parametrize("method", heads.METHODS)
def test_rejected_are_the_rows_below_the_threshold(classifier, method):
    classifier.set_params(method=method)
    plain, scores = classifier.predict(TEST), classifier.decision_function(TEST).max(axis=1)
    threshold = float(np.quantile(scores, 0.4))
    predictions = classifier.set_params(threshold=threshold).predict(TEST, reject=True)
    assert np.array_equal(predictions, np.where(scores < threshold, UNKNOWN, plain))
    assert 0 < np.mean(predictions == UNKNOWN) < 1
    assert np.array_equal(classifier.predict(TEST), plain)
    assert UNKNOWN not in classifier.set_params(threshold=-1e9).predict(TEST, reject=True)
    assert set(classifier.set_params(threshold=1e9).predict(TEST, reject=True)) == {UNKNOWN}


@pytest.mark.parametrize("method", heads.METHODS)
def test_threshold_is_that_of_the_rate(classifier, method):
    classifier.set_params(method=method)
    chosen = classifier.validation_.rejection[method]
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


def test_held_out_rows_are_rejected_at_the_rate():
    scores = held_out(rows=2000)
    for method in heads.METHODS:
        best = scores.of(method, 0.5).amax(dim=1).numpy()
        rejection = scores.rejection(method, 0.5, calibration=0.0)
        for rate in (0.05, 0.2, 0.37):
            assert np.mean(best < rejection.threshold(rate)) == pytest.approx(rate, abs=0.01)


def test_unknown_scores_are_those_without_the_own_class():
    scores = held_out(rows=300, generalized=True)
    calibration = 0.3
    rejections = {m: scores.rejection(m, 0.3, calibration) for m in heads.METHODS}
    shares = np.linspace(0, 1, 101)
    best = {method: [] for method in heads.METHODS}
    for row, label in enumerate(scores.labels):
        rest = [c for c in range(4) if c != label]
        logs = scores.log_probabilities[row].numpy()[rest]
        cosines = scores.cosines[row].numpy()[rest]
        offset = calibration * np.isin(rest, [0, 1])
        pooled = 0.7 * logs + 0.3 * 5.0 * cosines
        best["softmax"].append((logs - np.log(np.exp(logs).sum()) - offset).max())
        best["nearest"].append((cosines - offset).max())
        best["ensemble"].append((pooled - np.log(np.exp(pooled).sum()) - offset).max())
    for method, values in best.items():
        np.testing.assert_allclose(rejections[method].unknown, np.quantile(values, shares))


def test_detection_is_the_share_of_unknown_rows_below_the_threshold():
    known = tuple(np.linspace(0.5, 1.0, 101))
    unknown = tuple(np.linspace(0.0, 0.8, 101))
    rejection = Rejection(known, unknown)
    assert rejection.threshold(0.1) == pytest.approx(0.55)
    assert rejection.detection(0.1) == pytest.approx(0.55 / 0.8)
    for wrong in (-0.01, 1.01, float("nan")):
        with pytest.raises(ValueError, match="rate: expected a share in 0..1"):
            rejection.threshold(wrong)


def test_rejection_needs_a_threshold():
    classifier = MCFAClassifier(config("zsl", epochs=1, classifier_epochs=1))
    classifier.fit(IMAGES, LABELS, SEMANTICS)
    with pytest.raises(ValueError, match="reject: expected a threshold or .* got neither"):
        classifier.predict(TEST, reject=True)
    predictions = classifier.set_params(threshold=-1e9).predict(TEST, reject=True)
    assert set(predictions) <= set(UNSEEN.tolist())


def test_saved_choices_are_the_same(fitted, tmp_path):
    fitted.set_params(weight=0.125, rejection_rate=0.25, threshold=None)
    fitted.save(tmp_path / "file")
    loaded = MCFAClassifier.load(tmp_path / "file")
    assert (loaded.weight, loaded.rejection_rate, loaded.threshold) == (0.125, 0.25, None)
    assert loaded.validation_ == fitted.validation_
    fitted.set_params(weight=None, rejection_rate=0.05)
    for method in heads.METHODS:
        assert loaded.validation_.rejection[method] == fitted.validation_.rejection[method]
