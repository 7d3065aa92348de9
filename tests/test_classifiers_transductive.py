"""Transductive classification against plain loops, and what it must never do."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mcfa_fast.classifiers import transductive
from mcfa_fast.classifiers.transductive import log_posteriors, transduce
from mcfa_fast.classifiers.transductive_inputs import Labelled, TransductionConfig
from mcfa_fast.search.neighbours import nearest_others


def planted(count=60, classes=4, width=12, seed=0, noise=1.5):
    """Clusters about directions that scores know only roughly: (scores, features, labels)."""
    source = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = 3 * np.eye(classes, width)[labels] + 0.4 * source.normal(size=(count, width))
    scores = np.eye(classes)[labels] + noise * source.normal(size=(count, classes))
    return scores.astype(np.float32), features.astype(np.float32), labels


def softmax(row):
    values = np.exp(row - row.max())
    return values / values.sum()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def inverse_root_scatter(features, labels, shrinkage):
    units = unit(features.astype(np.float64))
    covariance = np.zeros((units.shape[1],) * 2)
    for z, label in zip(units, labels, strict=True):
        residual = z - units[labels == label].mean(axis=0)
        covariance += np.outer(residual, residual) / len(units)
    ridge = shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.inv(np.real(sqrtm(covariance + ridge)))


def oracle(scores, features, config, known=None, sizes=None, groups=None, matrix=None):
    """The docstring's formulas, one number at a time, in float64.

    `known`: features and columns of labelled images; `matrix`: what whitens.
    """
    scores, features = scores.astype(np.float64), features.astype(np.float64)
    count, columns = scores.shape
    residuals = scores - scores.mean(axis=0)
    residuals -= residuals.mean(axis=1, keepdims=True)
    logits = scores / (config.temperature * np.sqrt((residuals**2).mean()))
    sizes = np.ones(columns) if sizes is None else np.asarray(sizes)
    groups = np.zeros(columns) if groups is None else np.asarray(groups)
    plain = np.mean([softmax(row) for row in logits], axis=0)
    targets = [
        sizes[k] / sizes[groups == groups[k]].sum() * plain[groups == groups[k]].sum()
        for k in range(columns)
    ]
    offsets = np.zeros(columns)
    for _ in range(20 if config.balance else 0):
        means = np.mean([softmax(row + offsets) for row in logits], axis=0)
        offsets = config.balance * np.array(
            [np.log(targets[k]) - np.log(means[k]) + offsets[k] for k in range(columns)]
        )
    initial = np.array([np.log(softmax(row + offsets)) for row in logits])

    posteriors = np.exp(initial)
    if known is not None:
        features = np.concatenate([features, known[0].astype(np.float64)])
        posteriors = np.concatenate([posteriors, np.eye(columns)[known[1]]])
    units = unit(features)
    units -= units.mean(axis=0)
    units = unit(units if matrix is None else units @ matrix)
    moments = units.T @ units
    dimension = np.trace(moments) ** 2 / (moments**2).sum()
    similar = units @ units.T
    np.fill_diagonal(similar, -np.inf)
    result = initial
    for _ in range(config.rounds):
        means = np.array(
            [posteriors[:, k] @ units / posteriors[:, k].sum() for k in range(columns)]
        )
        variance = np.mean(
            [
                sum(p[k] * ((z - means[k]) ** 2).sum() for k in range(columns))
                for z, p in zip(units, posteriors, strict=True)
            ]
        )
        result, following = np.empty_like(initial), posteriors.copy()
        for i in range(count):
            near = np.argsort(-similar[i])[: config.neighbours]
            row = config.initial * initial[i]
            row = row + config.neighbour_weight * posteriors[near].mean(axis=0)
            for k in range(columns):
                distance = ((units[i] - means[k]) ** 2).sum()
                row[k] -= config.likelihood * dimension / 2 * distance / variance
            following[i] = softmax(row)
            result[i] = row - row.max() - np.log(np.exp(row - row.max()).sum())
        posteriors = following
    return result


CASES = ["plain", "labelled", "sizes", "groups", "unbalanced", "no rounds"]


@pytest.mark.parametrize("case", CASES)
def test_is_what_plain_loops_compute(case):
    scores, features, _ = planted()
    changes = {"unbalanced": {"balance": 0.0}, "no rounds": {"rounds": 0}}.get(case, {})
    config = TransductionConfig(**{"rounds": 4, "neighbours": 5, "whitening": None, **changes})
    sizes = [1.0, 2.0, 1.0, 4.0] if case == "sizes" else None
    groups = [0, 0, 1, 1] if case == "groups" else None
    known = labelled = None
    if case == "labelled":
        _, extra, columns = planted(count=12, seed=3)
        known, labelled = (extra, columns), Labelled.of(extra, columns + 7)
    found = log_posteriors(
        scores, features, config, labelled=labelled, class_sizes=sizes, groups=groups,
        classes=np.arange(4) + 7 if labelled else None,
    )
    expected = oracle(scores, features, config, known, sizes, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-5)


def test_whitens_by_the_scatter_of_labelled_images():
    scores, features, _ = planted()
    source = np.random.default_rng(5)
    labels = np.arange(200) % 5 + 50  # none of the columns' classes: they whiten, and that is all
    noise = np.linspace(0.2, 4, 12) * source.normal(size=(200, 12))
    images = 3 * np.eye(5, 12)[labels - 50] + noise
    labelled = Labelled.of(images.astype(np.float32), labels)
    config = TransductionConfig(rounds=4, neighbours=5, whitening=0.2)
    matrix = inverse_root_scatter(images, labels, 0.2)
    np.testing.assert_allclose(
        log_posteriors(scores, features, config, labelled=labelled),
        oracle(scores, features, config, matrix=matrix),
        rtol=1e-3,
        atol=2e-3,
    )
    none = TransductionConfig(whitening=None)
    assert np.array_equal(
        transduce(scores, features, none, labelled=labelled), transduce(scores, features, none)
    )


def test_helps_where_clusters_know_more_than_scores():
    scores, features, labels = planted(count=200, noise=1.5)
    before = (scores.argmax(axis=1) == labels).mean()
    after = (transduce(scores, features).argmax(axis=1) == labels).mean()
    assert before < 0.6
    assert after > 0.98


def test_same_bits_again_and_however_chunks_fall(monkeypatch):
    scores, features, labels = planted(count=90)
    labelled = Labelled.of(features[::3], labels[::3])
    first = transduce(scores, features, labelled=labelled)
    assert np.array_equal(first, transduce(scores, features, labelled=labelled))
    monkeypatch.setattr(transductive, "_VALUES", 64)  # a few rows
    np.testing.assert_allclose(
        transduce(scores, features, labelled=labelled), first, rtol=1e-4, atol=1e-5
    )


def test_labelled_images_are_fixed_and_pull():
    # All scores are equal: only the labelled images tell the clusters apart.
    _, features, labels = planted(count=80)
    nothing = np.zeros((80, 4), np.float32)
    labelled = Labelled.of(features[:8], labels[:8] + 10)
    found = transduce(nothing, features, labelled=labelled, classes=[10, 11, 12, 13])
    assert (found.argmax(axis=1) == labels).mean() == 1
    shuffled = transduce(nothing, features, labelled=labelled, classes=[13, 12, 11, 10])
    assert (shuffled.argmax(axis=1) == 3 - labels).mean() == 1
    assert np.ptp(transduce(nothing, features), axis=1).max() < 1e-5


def test_degenerate_sets():
    scores, features, _ = planted()
    assert transduce(scores[:0], features[:0]).shape == (0, 4)
    np.testing.assert_allclose(transduce(scores[:1], features[:1]).sum(), 1, rtol=1e-6)
    assert transduce(scores[:, :1], features).tolist() == [[1.0]] * 60
    same = transduce(np.repeat(scores[:1], 9, axis=0), np.repeat(features[:1], 9, axis=0))
    assert np.isfinite(same).all()
    assert np.array_equal(same, np.repeat(same[:1], 9, axis=0))
    zeros = transduce(scores, np.zeros_like(features))
    assert np.isfinite(zeros).all()
    far = transduce(scores * 1e30, features)  # scores of any scale
    np.testing.assert_allclose(far, transduce(scores, features), rtol=1e-2, atol=1e-4)
    assert transduce(scores.tolist(), torch.from_numpy(features)).shape == (60, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.full((60, 4), np.nan)}, "scores: NaN or infinity in row 0"),
        ({"scores": np.zeros(60)}, r"scores: expected shape \[N, K\]"),
        ({"scores": np.zeros((60, 0))}, r"scores: expected shape \[N, K\]"),
        ({"features": np.zeros((59, 12))}, "features: expected 60 rows, .* got 59"),
        ({"features": np.full((60, 12), np.inf)}, "features: NaN or infinity in row 0"),
        ({"class_sizes": [1, 2, 3]}, "class_sizes: expected 4 finite numbers"),
        ({"class_sizes": [1, 2, 3, 0]}, "class_sizes: expected 4 finite numbers"),
        ({"groups": [0, 1]}, "groups: expected 4 integers"),
        ({"classes": [0, 1, 2, 2]}, "classes: expected distinct"),
        ({"labelled": Labelled.of(np.ones((2, 3)), [0, 1])}, "labelled: expected .* 12 columns"),
    ],
)
def test_bad_input_is_named(changes, message):
    scores, features, _ = planted()
    with pytest.raises(ValueError, match=message):
        transduce(**{"scores": scores, "features": features, **changes})


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="labels: expected shape"):
        Labelled.of(np.ones((2, 3)), [0])
    with pytest.raises(TypeError, match="scores: expected real numbers"):
        transduce([["a", "b"]], np.ones((1, 3)))


def test_progress_reaches_the_end():
    scores, features, _ = planted()
    calls = []
    transduce(scores, features, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (16 * 60, 16 * 60)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize("count", [2, 3, 130, 700])
def test_neighbours_are_those_of_all_products(count, monkeypatch):
    monkeypatch.setattr("mcfa_fast.search.neighbours._BLOCK", 64)
    vectors = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    k = min(7, count - 1)
    products = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
    found = nearest_others(vectors, k)
    expected = products.topk(k, dim=1).indices
    assert torch.equal(found.sort(dim=1).values, expected.sort(dim=1).values)


def test_neighbours_of_copies_are_others():
    found = nearest_others(torch.ones(5, 3), 4)
    expected = [[j for j in range(5) if j != i] for i in range(5)]
    assert found.sort(dim=1).values.tolist() == expected
    with pytest.raises(ValueError, match=r"k: expected 1\.\.4"):
        nearest_others(torch.ones(5, 3), 5)
