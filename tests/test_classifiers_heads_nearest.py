"""Within-class whitening of latents, and the gain of seen classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

from mcfa_fast.inference import MCFAClassifier
from mcfa_fast.classifiers.bulk import encode_means
from mcfa_fast.classifiers.whitening import whitened, whitening_matrix
from mcfa_fast.training.trainer import Trainer

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


@pytest.mark.parametrize("hidden", [None, 16])
def test_model_gives_whitened_latents_and_reconstructs_as_before(hidden):
    options = config(
        "zsl", epochs=2, visual_hidden=hidden, semantic_hidden=hidden, latent_whitening=1e-6
    )
    model = Trainer(options, IMAGES, LABELS, SEMANTICS).fit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = whitened(model, IMAGES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    latents = encode_means(copy, IMAGES).double().numpy()
    covariance = within_class_covariance(latents, LABELS)
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=1e-2)

    matrix = whitening_matrix(encode_means(model, IMAGES), torch.from_numpy(LABELS), 1e-6)
    for encode, decode, values in (
        ("encode_visual", "visual", torch.from_numpy(IMAGES)),
        ("encode_semantic", "semantic", SEMANTICS),
    ):
        (mean, logvar), (other, same) = (getattr(m, encode)(values) for m in (model, copy))
        torch.testing.assert_close(other.double(), mean.double() @ matrix, rtol=1e-4, atol=1e-4)
        assert torch.equal(logvar, same)
        torch.testing.assert_close(
            getattr(copy, decode).decode(other),
            getattr(model, decode).decode(mean),
            rtol=1e-3,
            atol=1e-4,
        )


def test_nearest_class_compares_whitened_latents():
    options = config("zsl", epochs=3)
    plain = MCFAClassifier(options, method="nearest").fit(IMAGES, LABELS, SEMANTICS)
    whitening = MCFAClassifier(options.replace(latent_whitening=0.5), method="nearest")
    whitening.fit(IMAGES, LABELS, SEMANTICS)
    model = plain.heads_.model
    matrix = whitening_matrix(encode_means(model, IMAGES), torch.from_numpy(LABELS), 0.5)
    images = encode_means(model, IMAGES).double() @ matrix
    classes = model.encode_semantic(SEMANTICS)[0].double() @ matrix
    expected = torch.cosine_similarity(images[:, None], classes[None, whitening.classes_], dim=2)
    scores = whitening.decision_function(IMAGES)
    np.testing.assert_allclose(scores, expected.detach().numpy(), atol=1e-5)
    assert not np.allclose(scores, plain.decision_function(IMAGES), atol=1e-2)


def test_gain_multiplies_similarities_to_seen_classes_of_the_generalized_task():
    scores = {}
    for gain in (1.0, 3.0):
        for task in ("zsl", "gzsl"):
            options = config(task, epochs=2, seen_gain=gain)
            classifier = MCFAClassifier(options, method="nearest")
            classifier.fit(IMAGES, LABELS, SEMANTICS)
            candidates = np.arange(NEW)
            scores[gain, task] = classifier.decision_function(IMAGES, candidates=candidates)
            softmax = classifier.set_params(method="softmax").decision_function(IMAGES)
            scores[gain, task, "softmax"] = softmax
    factors = np.where(np.isin(np.arange(NEW), SEEN), np.float32(3), np.float32(1))
    assert np.array_equal(scores[3, "gzsl"], scores[1, "gzsl"].astype(np.float32) * factors)
    assert np.array_equal(scores[3, "zsl"], scores[1, "zsl"])
    for task in ("zsl", "gzsl"):
        assert np.array_equal(scores[3, task, "softmax"], scores[1, task, "softmax"])
