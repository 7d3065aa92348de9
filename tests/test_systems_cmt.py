"""The network of CMT against its equation."""

import numpy as np
import pytest
import torch
from planted_data import SEEN, UNSEEN, planted_images, planted_semantics
from sklearn.neighbors import NearestNeighbors
from systems_helpers import fit_system, prepared, scores

from mcfa_fast.systems.layers import unit_rows

pytestmark = pytest.mark.usefixtures("one_thread")

UNIT = unit_rows(planted_semantics())


@pytest.fixture(scope="module")
def fitted():
    return fit_system(
        "cmt", planted_images(SEEN), planted_semantics(), hidden_units=30, epochs=20
    )


def regressed(system, features):
    """W_1 tanh(W_2 x + b_2) + b_1, by hand."""
    state = {name: value.numpy() for name, value in system.state_dict().items()}
    rows = prepared(system, features).numpy()
    hidden = np.tanh(rows @ state["hidden_weight"].T + state["hidden_bias"])
    return hidden @ state["output_weight"].T + state["output_bias"]


def test_scores_are_negative_squared_distances(fitted):
    features = planted_images(UNSEEN, seed=1)[0]
    wanted = -np.square(regressed(fitted, features)[:, None] - UNIT[UNSEEN]).sum(axis=2)
    got = scores(fitted, features, planted_semantics()[UNSEEN])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_the_highest_score_is_the_nearest_descriptor(fitted):
    features = planted_images(UNSEEN, seed=1)[0]
    index = NearestNeighbors(n_neighbors=1).fit(UNIT[UNSEEN])
    nearest = index.kneighbors(regressed(fitted, features), return_distance=False)[:, 0]
    got = scores(fitted, features, planted_semantics()[UNSEEN])
    np.testing.assert_array_equal(got.argmax(axis=1), nearest)


def test_loss_is_the_mean_squared_distance_to_the_true_descriptor(fitted):
    features, labels = planted_images(SEEN, seed=1)
    loss = fitted.compatibility.loss(prepared(fitted, features), torch.from_numpy(labels)).item()
    distances = np.square(regressed(fitted, features) - UNIT[labels]).sum(axis=1)
    assert loss == pytest.approx(distances.mean(), rel=1e-5)


def test_starts_at_the_mean_descriptor():
    """So that the first loss is at most the descriptors' variance, up to the initial weights."""
    features, labels = planted_images(SEEN)
    labels = np.where(labels > 3, labels, 0)  # unequal classes
    options = {"epochs": 1, "learning_rate": 1e-12, "batch_size": 10_000}
    system = fit_system("cmt", (features, labels), planted_semantics(), **options)
    bias = system.state_dict()["output_bias"].numpy()
    np.testing.assert_allclose(bias, UNIT[labels].mean(axis=0), atol=1e-6)
