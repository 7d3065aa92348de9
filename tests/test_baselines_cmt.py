"""The network of CMT against its equation."""

import numpy as np
import pytest
import torch
from planted_data import SEEN, UNSEEN, planted_images, planted_semantics
from sklearn.neighbors import NearestNeighbors

from mcfa_fast.baselines import CMT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fitted():
    return CMT(hidden_units=30, epochs=20).fit(*planted_images(SEEN), planted_semantics())


def regressed(baseline, features):
    """W_1 tanh(W_2 x + b_2) + b_1, by hand."""
    state = {name: value.numpy() for name, value in baseline.module_.state_dict().items()}
    hidden = np.tanh(
        baseline.preparation_.apply(features) @ state["hidden.weight"].T + state["hidden.bias"]
    )
    return hidden @ state["output.weight"].T + state["output.bias"]


def test_scores_are_negative_squared_distances(fitted):
    features = planted_images(UNSEEN, seed=1)[0]
    output = regressed(fitted, features)
    wanted = -np.square(output[:, None] - fitted.semantics_[UNSEEN]).sum(axis=2)
    np.testing.assert_allclose(fitted.decision_function(features), wanted, rtol=1e-4, atol=1e-5)


def test_predicts_the_nearest_descriptor(fitted):
    features = planted_images(UNSEEN, seed=1)[0]
    index = NearestNeighbors(n_neighbors=1).fit(fitted.semantics_[UNSEEN])
    nearest = index.kneighbors(regressed(fitted, features), return_distance=False)[:, 0]
    np.testing.assert_array_equal(fitted.predict(features), UNSEEN[nearest])


def test_loss_is_the_mean_squared_distance_to_the_true_descriptor(fitted):
    features, labels = planted_images(SEEN, seed=1)
    prepared = torch.from_numpy(fitted.preparation_.apply(features))
    loss = fitted.module_.loss(prepared, torch.from_numpy(labels)).item()
    distances = np.square(regressed(fitted, features) - fitted.semantics_[labels]).sum(axis=1)
    assert loss == pytest.approx(distances.mean(), rel=1e-5)


def test_starts_at_the_mean_descriptor():
    """So that the first loss is at most the descriptors' variance, up to the initial weights."""
    features, labels = planted_images(SEEN)
    labels = np.where(labels > 3, labels, 0)  # unequal classes
    keep = np.isin(labels, [0, *range(4, 24)])
    baseline = CMT(epochs=1, learning_rate=1e-12, batch_size=10_000)
    baseline.fit(features[keep], labels[keep], planted_semantics())
    mean = baseline.semantics_[labels[keep]].mean(axis=0)
    np.testing.assert_allclose(baseline.module_.output.bias.detach().numpy(), mean, atol=1e-6)


@pytest.mark.parametrize("width", [0, 2.5, None])
def test_rejects_widths(width):
    with pytest.raises(ValueError, match="hidden_units: expected an integer above 0, got"):
        CMT(hidden_units=width).fit(*planted_images(SEEN), planted_semantics())
