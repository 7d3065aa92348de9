"""Calibrations chosen by cross-validation over the seen classes."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.selection.folds import class_folds
from mcfa_fast.evaluation import harmonic_mean, mean_class_accuracy
from mcfa_fast.inference import METHODS, MCFAClassifier
from mcfa_fast.inference import fold_calibration as module
from mcfa_fast.selection.fold_calibration_old import calibrate_on_folds

IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = torch.tensor(make_semantics()[:NEW])

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(task="gzsl", **options):
    return config(task, selection="folds", **{"epochs": 20, **options})


@pytest.mark.parametrize("method", ["nearest", "ensemble"])
def test_one_calibration_maximises_the_mean_harmonic_mean_of_the_folds(method):
    options = settings()
    chosen = calibrate_on_folds(options, IMAGES, LABELS, SEMANTICS)
    assert chosen.epochs == options.epochs
    assert sorted(chosen.held_out) == SEEN.tolist(), "every class once"
    assert set(chosen.calibration) == set(METHODS)
    folds = class_folds(
        LABELS, 3, generalized=True, generator=options.generator("calibration folds")
    )
    tested = []
    for fold in folds:
        classifier = MCFAClassifier(options.replace(selection="last"), method=method)
        classifier.fit(IMAGES[fold.train], fold.labels[fold.train], SEMANTICS[fold.classes])
        parts = [(IMAGES[rows], fold.labels[rows]) for rows in (fold.test_seen, fold.test_unseen)]
        unit = classifier.heads_.sharpness if method == "ensemble" else 1
        tested.append((classifier, unit, parts))

    def mean_harmonic(calibration):
        return np.mean(
            [
                harmonic_mean(
                    *(
                        mean_class_accuracy(
                            labels,
                            classifier.set_params(calibration=calibration * unit).predict(images),
                        )
                        for images, labels in parts
                    )
                )
                for classifier, unit, parts in tested
            ]
        )

    reached = mean_harmonic(chosen.calibration[method])
    others = [mean_harmonic(calibration) for calibration in np.linspace(-0.5, 0.5, 41)]
    assert reached >= max(others) > min(others)


def test_the_classifier_uses_what_was_chosen_and_keeps_the_last_epoch(tmp_path):
    options = settings()
    names = {"unseen_classes": np.arange(len(SEEN), NEW)}
    chosen = MCFAClassifier(options).fit(IMAGES, LABELS, SEMANTICS, **names)
    last = MCFAClassifier(options.replace(selection="last")).fit(IMAGES, LABELS, SEMANTICS, **names)
    for method in METHODS:
        chosen.set_params(method=method), last.set_params(method=method)
        unit = chosen.heads_.sharpness if method == "ensemble" else 1
        calibration = chosen.validation_.calibration[method] * unit
        assert chosen.effective_calibration == calibration and last.effective_calibration == 0
        plain = last.decision_function(IMAGES, calibration=calibration)
        assert np.array_equal(chosen.decision_function(IMAGES), plain)
    chosen.save(tmp_path / "classifier.pt")
    loaded = MCFAClassifier.load(tmp_path / "classifier.pt")
    assert loaded.effective_calibration == chosen.effective_calibration


def test_descriptors_of_unseen_classes_are_not_looked_at():
    garbage = SEMANTICS.clone()
    garbage[len(SEEN) :] = 1e3
    first, second = (
        calibrate_on_folds(settings(), IMAGES, LABELS, s) for s in (SEMANTICS, garbage)
    )
    assert first == second


def test_a_task_without_seen_candidates_needs_no_folds(monkeypatch):
    monkeypatch.setattr(module, "class_folds", None)  # would fail
    classifier = MCFAClassifier(settings("zsl")).fit(IMAGES, LABELS, SEMANTICS)
    assert classifier.validation_ is None


def test_too_few_classes():
    few = LABELS < 3
    with pytest.raises(ValueError, match="expected 4 or more seen classes"):
        calibrate_on_folds(settings(classes_per_batch=2), IMAGES[few], LABELS[few], SEMANTICS)


# Preset best


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_preset_best_learns_and_is_saved(task, tmp_path):
    options = MCFAConfig.best(task, latent_features=8, batch_size=32, epochs=60)
    classifier = MCFAClassifier(options, method="nearest")
    classifier.fit(IMAGES, LABELS, SEMANTICS)
    images, labels = make_images(np.arange(len(SEEN), NEW), rows=30, seed=5)
    assert classifier.score(images, labels, candidates=[10, 11]) > 0.9
    classifier.save(tmp_path / "classifier.pt")
    loaded = MCFAClassifier.load(tmp_path / "classifier.pt").set_params(method="nearest")
    assert np.array_equal(loaded.decision_function(images), classifier.decision_function(images))
    added = make_semantics()[NEW:]
    for model in (classifier, loaded):
        model.add_classes(["new"], added)
    assert np.array_equal(loaded.decision_function(images), classifier.decision_function(images))


def test_kernel_prototypes_are_the_formula():
    options = MCFAConfig.best("zsl", latent_features=8, batch_size=32, epochs=3)
    heads = MCFAClassifier(options).fit(IMAGES, LABELS, SEMANTICS).heads_
    vectors, classes = heads.class_vectors()
    assert classes.tolist() == list(range(NEW))
    model = heads.model
    with torch.no_grad():
        scaled = model.semantic_scaler(SEMANTICS).double()
        own = model.encode_semantic(SEMANTICS)[0].double()
        latents = model.encode_visual(torch.from_numpy(IMAGES))[0].double()
    for c in range(NEW):
        cosines = [torch.cosine_similarity(scaled[c], scaled[k], dim=0) for k in SEEN]
        weights = torch.softmax(torch.stack(cosines) / options.prototype_kernel, dim=0)
        expected = own[c] / own[c].norm()
        for weight, k in zip(weights, SEEN, strict=True):
            mean = latents[LABELS == k].mean(0)
            expected = expected + weight * mean / mean.norm()
        torch.testing.assert_close(vectors[c].double(), expected, rtol=1e-4, atol=1e-5)
