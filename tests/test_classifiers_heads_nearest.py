"""The nearest class: whitening, prototypes of images and descriptors, the gain of seen classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.classifiers.heads.whitening import whitening_matrix

IMAGES, LABELS = make_images(SEEN, rows=15)
SEMANTICS = torch.tensor(make_semantics()[:NEW])

pytestmark = pytest.mark.usefixtures("one_thread")


def within_class_covariance(latents, labels):
    residuals = np.concatenate(
        [latents[labels == c] - latents[labels == c].mean(axis=0) for c in np.unique(labels)]
    )
    return residuals.T @ residuals / len(latents)


@given(
    rows=st.integers(2, 40),
    features=st.integers(1, 6),
    classes=st.integers(1, 5),
    shrinkage=st.floats(1e-3, 1e3),
    scale=st.floats(1e-4, 1e4),
    seed=st.integers(0, 99),
)
def test_matrix_is_the_inverse_root(rows, features, classes, shrinkage, scale, seed):
    rng = np.random.default_rng(seed)
    latents = scale * rng.normal(size=(rows, features))
    labels = np.append(rng.integers(0, classes, rows - 2), [7, 7])  # two rows of one class
    covariance = within_class_covariance(latents, labels)
    regular = covariance + shrinkage * np.trace(covariance) / features * np.eye(features)
    matrix = whitening_matrix(torch.from_numpy(latents), torch.from_numpy(labels), shrinkage)
    matrix = matrix.numpy()
    np.testing.assert_allclose(matrix @ regular @ matrix, np.eye(features), atol=1e-8)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10 / scale)
    assert np.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 2]])
def test_classes_without_any_spread_are_left_alone(labels):
    latents = torch.tensor([[0.1, 0.7], [0.1, 0.7], [3.0, -5.0]])
    matrix = whitening_matrix(latents, torch.tensor(labels), 1.0)
    assert torch.equal(matrix, torch.eye(2, dtype=torch.float64))


def fit(run):
    return ZeroShotClassifier(run).fit(IMAGES, LABELS, SEMANTICS)


def cosines(images, classes):
    images, classes = images.double(), classes.double()
    return torch.cosine_similarity(images[:, None], classes[None], dim=2).detach().numpy()


def test_nearest_class_compares_whitened_embeddings():
    plain = fit(config("zsl", head="nearest", epochs=3))
    whitening = fit(config("zsl", head="nearest", epochs=3, whitening=0.5))
    system = plain.system_
    images = system.embed(torch.from_numpy(IMAGES)).double()
    matrix = whitening_matrix(images, torch.from_numpy(LABELS), 0.5)
    classes = system.prototypes(SEMANTICS[whitening.classes_]).double()
    scores = whitening.decision_function(IMAGES)
    np.testing.assert_allclose(scores, cosines(images @ matrix, classes @ matrix), atol=1e-5)
    assert not np.allclose(scores, plain.decision_function(IMAGES), atol=1e-2)
    head = whitening.head_
    spread = within_class_covariance(head.whiten(images.float()).double().numpy(), LABELS)
    np.testing.assert_allclose(head.whitening.double(), matrix, rtol=1e-4, atol=1e-6)
    expected = matrix @ torch.from_numpy(within_class_covariance(images.numpy(), LABELS)) @ matrix
    np.testing.assert_allclose(spread, expected, rtol=1e-3, atol=1e-5)


def test_gain_multiplies_similarities_to_seen_classes_of_the_generalized_task():
    scores = {}
    for gain in (1.0, 3.0):
        for task in ("zsl", "gzsl"):
            classifier = fit(config(task, head="nearest", epochs=2, seen_gain=gain))
            candidates = np.arange(NEW)
            scores[gain, task] = classifier.decision_function(IMAGES, candidates=candidates)
            softmax = classifier.with_head("softmax").decision_function(IMAGES)
            scores[gain, task, "softmax"] = softmax
    factors = np.where(np.isin(np.arange(NEW), SEEN), np.float32(3), np.float32(1))
    assert np.array_equal(scores[3, "gzsl"], scores[1, "gzsl"].astype(np.float32) * factors)
    assert np.array_equal(scores[3, "zsl"], scores[1, "zsl"])
    for task in ("zsl", "gzsl"):
        assert np.array_equal(scores[3, task, "softmax"], scores[1, task, "softmax"])


def test_image_prototypes_are_second_vectors_of_seen_classes():
    plain = fit(config("gzsl", head="nearest", epochs=5))
    changed = fit(config("gzsl", head="nearest", epochs=5, image_prototypes=True))
    images = plain.system_.embed(torch.from_numpy(IMAGES))
    means = torch.stack([images[torch.from_numpy(LABELS == c)].double().mean(0) for c in SEEN])
    wanted = plain.decision_function(IMAGES)
    wanted[:, SEEN] = np.maximum(wanted[:, SEEN], cosines(images, means))
    scores = changed.decision_function(IMAGES)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert not np.allclose(scores, plain.decision_function(IMAGES), atol=1e-3)


@pytest.mark.parametrize("image_prototypes", [False, True])
@pytest.mark.parametrize("whitening", [None, 0.5])
def test_kernel_prototypes_are_the_formula(whitening, image_prototypes):
    options = {
        "embedding_features": 8,
        "batch_size": 32,
        "epochs": 3,
        "whitening": whitening,
        "prototype_kernel": 0.3,
        "image_prototypes": image_prototypes,
        "selection": "none",
        "seen_gain": 1.0,
    }
    classifier = ZeroShotClassifier("dual-encoder", task="gzsl", options=options)
    classifier.fit(IMAGES, LABELS, SEMANTICS)
    system = classifier.system_
    scaled = system.scale_semantics(SEMANTICS).double()
    own = system.prototypes(SEMANTICS).double()
    images = system.embed(torch.from_numpy(IMAGES)).double()
    if whitening is not None:
        matrix = whitening_matrix(images, torch.from_numpy(LABELS), whitening)
        own, images = own @ matrix, images @ matrix
    means = torch.stack([images[torch.from_numpy(LABELS == k)].mean(0) for k in SEEN])
    vectors = []
    for c in range(NEW):
        similar = torch.stack([torch.cosine_similarity(scaled[c], scaled[k], dim=0) for k in SEEN])
        vector = own[c] / own[c].norm()
        for weight, mean in zip(torch.softmax(similar / 0.3, dim=0), means, strict=True):
            vector = vector + weight * mean / mean.norm()
        vectors.append(vector)
    expected = cosines(images, torch.stack(vectors))
    if image_prototypes:
        expected[:, SEEN] = np.maximum(expected[:, SEEN], cosines(images, means))
    np.testing.assert_allclose(classifier.decision_function(IMAGES), expected, atol=1e-4)


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
def test_recommended_system_learns_and_is_saved(task, tmp_path):
    options = {"embedding_features": 8, "batch_size": 32, "epochs": 60}
    classifier = ZeroShotClassifier(task=task, options=options).fit(IMAGES, LABELS, SEMANTICS)
    images, labels = make_images(np.arange(len(SEEN), NEW), rows=30, seed=5)
    assert classifier.score(images, labels, candidates=[10, 11]) > 0.9
    classifier.save(tmp_path / "classifier.pt")
    loaded = ZeroShotClassifier.load(tmp_path / "classifier.pt")
    assert np.array_equal(loaded.decision_function(images), classifier.decision_function(images))
    for one in (classifier, loaded):
        one.add_classes(["new"], make_semantics()[NEW:])
    assert np.array_equal(loaded.decision_function(images), classifier.decision_function(images))


@pytest.mark.parametrize(("given", "scale"), [(None, 1 / 2.0), (0.25, 4.0)])
def test_probabilities_use_the_temperature_of_the_losses_unless_given(given, scale):
    classifier = fit(config("zsl", head="nearest", epochs=1, **{"nearest.temperature": given}))
    scores = torch.from_numpy(classifier.decision_function(IMAGES))
    expected = torch.softmax(scale * scores, dim=1)
    np.testing.assert_allclose(classifier.predict_proba(IMAGES), expected, rtol=1e-6)
