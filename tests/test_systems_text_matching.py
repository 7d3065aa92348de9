"""Text matching: the plain cosine, and its adaptation to images of seen classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mcfa_fast as mf
from mcfa_fast.systems.text_matching import TextMatching, TextMatchingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

WHU = Path(__file__).resolve().parents[2] / "shared/data/whu_rs19"


def embeddings(seed=0):
    """Images around class texts, both shifted by a modality's own offset."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(6, 16)) + 2 * rng.normal(size=16)
    labels = np.arange(120) % 4
    images = texts[labels] + 3 * rng.normal(size=16) + 0.5 * rng.normal(size=(120, 16))
    return images.astype(np.float32), labels, texts.astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_plain_scores_are_cosines():
    images, labels, texts = embeddings()
    classifier = mf.ZeroShotClassifier("text-matching").fit(images, labels, texts)
    expected = unit(images.astype(np.float64)) @ unit(texts[4:].astype(np.float64)).T
    np.testing.assert_allclose(classifier.decision_function(images), expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_centring_subtracts_a_share_of_the_means_over_seen_classes(share):
    images, labels, texts = embeddings()
    images, labels = images[:-30], labels[:-30]  # classes of unequal size count the same
    options = {"centring": share}
    classifier = mf.ZeroShotClassifier("text-matching", options=options).fit(images, labels, texts)
    x, s = unit(images.astype(np.float64)), unit(texts.astype(np.float64))
    image_mean = np.mean([x[labels == c].mean(axis=0) for c in range(4)], axis=0)
    x, s = unit(x - share * image_mean), unit(s - share * s[:4].mean(axis=0))
    np.testing.assert_allclose(classifier.decision_function(images), x @ s[4:].T, atol=1e-5)


def test_seen_classes_take_a_share_of_their_images():
    images, labels, texts = embeddings()
    options = {"image_share": 0.25, "selection": "none"}
    classifier = mf.ZeroShotClassifier("text-matching", task="gzsl", options=options)
    scores = classifier.fit(images, labels, texts).decision_function(images)
    x, s = unit(images.astype(np.float64)), unit(texts.astype(np.float64))
    means = unit(np.stack([x[labels == c].mean(axis=0) for c in range(4)]))
    vectors = np.concatenate([0.75 * s[:4] + 0.25 * means, s[4:]])
    np.testing.assert_allclose(scores, x @ unit(vectors).T, atol=1e-5)


def test_descriptors_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"semantics: text matching expected .* \(8\).* got 5"):
        TextMatching(TextMatchingConfig(), 8, 5)


def test_encoder_of_an_export_embeds_the_same():
    images, labels, texts = embeddings()
    options = {"centring": 0.5}
    classifier = mf.ZeroShotClassifier("text-matching", options=options).fit(images, labels, texts)
    module = torch.jit.script(classifier.system_.encoder())
    rows = torch.from_numpy(images)
    torch.testing.assert_close(module(rows), classifier.system_.embed(rows))


@pytest.mark.skipif(not WHU.is_dir(), reason="needs ../shared/data/whu_rs19")
@pytest.mark.parametrize("encoder", ["clip_rn50", "clip_b32"])
def test_adaptation_helps_real_embeddings(encoder):
    """Over all ten 10/9 splits; the README of the data has 82.8 and 88.9 for plain matching."""
    data = mf.data.load(WHU, features=encoder, semantics=encoder)
    scores = {"plain": [], "adapted": []}
    for k in range(10):
        split = data.split(f"10/9:{k}", generalized=False)
        for preset, found in scores.items():
            options = {"selection": "none"}
            classifier = mf.ZeroShotClassifier("text-matching", preset=preset, options=options)
            classifier.fit(
                data.rows(split.train),
                data.labels[split.train],
                data.semantics,
                unseen_classes=split.unseen_classes,
            )
            rows = split.test_unseen
            found.append(classifier.score(data.features[rows], data.labels[rows]))
    expected = {"clip_rn50": 0.828, "clip_b32": 0.889}[encoder]
    assert np.mean(scores["plain"]) == pytest.approx(expected, abs=6e-4)
    assert np.mean(scores["adapted"]) >= np.mean(scores["plain"]) + 0.002
