"""SSE: histograms against the conditions of their optimum, the objective by explicit loops."""

import numpy as np
import pytest
import torch
from planted_data import SEEN, UNSEEN, planted_images, planted_semantics
from scipy.optimize import minimize
from systems_helpers import fit_system, prepared, scores

from mcfa_fast.systems.layers import unit_rows
from mcfa_fast.systems.sse import seen_class_histograms

pytestmark = pytest.mark.usefixtures("one_thread")

SMOOTHINGS = [0.0, 1e-3, 0.1, 1.0, 100.0]


def descriptors(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("width", [3, 40])
def test_histograms_meet_the_conditions_of_their_optimum(width, smoothing):
    """Karush-Kuhn-Tucker: one slope on the support, none smaller beside it."""
    seen, others = descriptors(12, width), descriptors(7, width, seed=1)
    histograms = seen_class_histograms(others, seen, smoothing)
    assert histograms.min() >= 0
    np.testing.assert_allclose(histograms.sum(axis=1), 1, rtol=1e-12)
    slopes = (histograms @ seen - others) @ seen.T + smoothing * histograms
    for histogram, slope in zip(histograms, slopes, strict=True):
        level = histogram @ slope
        scale = 1e-7 * max(1.0, np.abs(slope).max())
        np.testing.assert_allclose(slope[histogram > 1e-9], level, atol=scale)
        assert slope.min() >= level - scale


def test_histograms_are_those_of_a_general_solver():
    seen, other = descriptors(6, 4), descriptors(1, 4, seed=1)
    solution = minimize(
        lambda z: 0.1 * z @ z + 0.5 * np.square(other[0] - z @ seen).sum(),
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    histograms = seen_class_histograms(other, seen, smoothing=0.2)
    np.testing.assert_allclose(histograms[0], solution.x, atol=1e-6)


def test_without_smoothing_a_seen_class_is_itself():
    seen = descriptors(9, 30)
    np.testing.assert_allclose(seen_class_histograms(seen, seen, 0.0), np.eye(9), atol=1e-9)


def test_a_mixture_of_seen_classes_is_found():
    mixtures = np.random.default_rng(2).dirichlet(np.ones(9), size=4)
    seen = descriptors(9, 30)
    np.testing.assert_allclose(
        seen_class_histograms(mixtures @ seen, seen, 0.0), mixtures, atol=1e-9
    )


def test_much_smoothing_mixes_equally():
    seen = descriptors(9, 30)
    np.testing.assert_allclose(seen_class_histograms(seen, seen, 1e9), 1 / 9, atol=1e-6)


UNIT = unit_rows(planted_semantics())


@pytest.fixture(scope="module")
def fitted():
    options = {"smoothing": 0.1, "epochs": 3, "penalty": 0.01}
    return fit_system("sse", planted_images(SEEN), planted_semantics(), **options)


def compatibility(system, features, semantics):
    """F(x, y) = Σ_s z_ys w·max(0, x - v_s), pair by pair."""
    weights = system.compatibility.w.detach().double().numpy()
    thresholds = system.compatibility.thresholds.detach().double().numpy()
    histograms = seen_class_histograms(semantics, UNIT[SEEN], 0.1)
    return np.array(
        [
            [
                sum(
                    share * (weights @ np.maximum(0, x - threshold))
                    for share, threshold in zip(histogram, thresholds, strict=True)
                )
                for histogram in histograms
            ]
            for x in prepared(system, features).double().numpy()
        ]
    )


def test_scores_by_explicit_loops(fitted):
    features = planted_images(UNSEEN, rows=2, seed=1)[0]
    wanted = compatibility(fitted, features, UNIT[UNSEEN])
    got = scores(fitted, features, planted_semantics()[UNSEEN])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_objective_by_explicit_loops(fitted):
    """Both kinds of hinges and the squared norm; a class is absent from the batch."""
    features, labels = planted_images(SEEN[:-1], rows=3, seed=1)
    features, labels = features[1:], labels[1:]  # unequal classes
    values = compatibility(fitted, features, UNIT[SEEN])
    semantics = UNIT[SEEN].astype(np.float64)
    delta = 1 - semantics @ semantics.T
    violations = sum(
        max(0.0, delta[label, y] + row[y] - row[label])
        for row, label in zip(values, labels, strict=True)
        for y in SEEN
        if y != label
    )
    alignment = 0.0
    for label in SEEN[:-1]:
        mean = values[labels == label].mean(axis=0)
        alignment += sum(
            max(0.0, delta[label, s] + mean[s] - mean[label]) for s in SEEN if s != label
        )
    norm = fitted.compatibility.w.detach().double().square().sum().item()
    wanted = violations / len(labels) + alignment / len(SEEN[:-1]) + 0.01 / 2 * norm
    loss = fitted.compatibility.loss(prepared(fitted, features), torch.from_numpy(labels)).item()
    assert loss == pytest.approx(wanted, rel=1e-4)


def test_intersections_differ_from_rectified_differences_by_a_common_term(fitted):
    """Σ_s z_s w·max(0, x - v_s) = w·x - Σ_s z_s w·min(x, v_s): the same differences of classes."""
    features = planted_images(UNSEEN, rows=2, seed=1)[0]
    x = prepared(fitted, features).numpy()
    state = {name: value.numpy() for name, value in fitted.state_dict().items()}
    intersections = np.minimum(x[:, None], state["thresholds"]) @ -state["w"]
    histograms = seen_class_histograms(UNIT[UNSEEN], UNIT[SEEN], 0.1)
    got = scores(fitted, features, planted_semantics()[UNSEEN])
    difference = got - intersections @ histograms.T
    np.testing.assert_allclose(np.ptp(difference, axis=1), 0, atol=1e-3)


def class_means(system, features, labels):
    rows = prepared(system, features).numpy()
    return np.stack([rows[labels == label].mean(axis=0) for label in SEEN])


def test_thresholds_start_at_the_class_means():
    features, labels = (values[5:] for values in planted_images(SEEN))
    options = {"epochs": 1, "learning_rate": 1e-12}
    system = fit_system("sse", (features, labels), planted_semantics(), **options)
    means = class_means(system, features, labels)
    thresholds = system.compatibility.thresholds.detach().numpy()
    np.testing.assert_allclose(thresholds, means, atol=1e-6)


def test_thresholds_take_steps_on_the_scale_of_the_features():
    """They have no gradient in the first step, from weights of zero, so that Adam's second step is
    0.1 / (1 - 0.9²) / sqrt(0.001 / (1 - 0.999²)) = 0.744 of the learning rate, for every entry.
    """
    images = planted_images(SEEN)
    options = {"epochs": 2, "batch_size": len(images[1]), "learning_rate": 0.01}
    system = fit_system("sse", images, planted_semantics(), **options)
    moved = np.abs(system.compatibility.thresholds.detach().numpy() - class_means(system, *images))
    scale = prepared(system, images[0]).square().mean().sqrt().item()
    np.testing.assert_allclose(moved.max(), 0.744 * 0.01 * scale, rtol=1e-2)
