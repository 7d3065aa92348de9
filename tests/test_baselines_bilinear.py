"""DeViSE, ALE, SJE and LatEm: losses by explicit loops, and their steps on the whole map."""

import numpy as np
import pytest
import torch
from planted_data import ATTRIBUTES, FEATURES, SEEN, planted_images, planted_semantics

from mcfa_fast.baselines import ALE, SJE, DeViSE, LatEm
from mcfa_fast.systems.ale import weighted_ranking_loss
from mcfa_fast.systems.devise import hinge_rank_loss
from mcfa_fast.systems.preparation_old import FeaturePreparation, unit_rows
from mcfa_fast.systems.sje import structured_hinge_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def devise_loop(scores, label):
    return sum(max(0.0, 1 + score - scores[label]) for y, score in enumerate(scores) if y != label)


def ale_loop(scores, label):
    rank = sum(1 + score - scores[label] > 0 for y, score in enumerate(scores) if y != label)
    beta = sum(1 / k for k in range(1, rank + 1))
    return beta / rank * devise_loop(scores, label) if rank else 0.0


def sje_loop(scores, label):
    return max((y != label) + score for y, score in enumerate(scores)) - scores[label]


LOSSES = {
    hinge_rank_loss: devise_loop,
    weighted_ranking_loss: ale_loop,
    structured_hinge_loss: sje_loop,
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_losses_by_explicit_loops(loss, scale):
    """Small scales violate every margin, large ones few."""
    generator = torch.Generator().manual_seed(0)
    scores = scale * torch.randn(50, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (50,), generator=generator)
    wanted = [
        LOSSES[loss](row, label)
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(loss(scores, labels), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_no_loss_beyond_the_margin(loss):
    scores = torch.tensor([[3.0, 1.9, -4.0]], requires_grad=True)
    value = loss(scores, torch.tensor([0])).sum()
    value.backward()
    assert value.item() == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_of_one_class_there_is_nothing_to_lose(loss):
    assert loss(torch.tensor([[3.0], [-1.0]]), torch.tensor([0, 0])).tolist() == [0, 0]


def test_one_violation_is_the_same_loss_for_all():
    scores, labels = torch.tensor([[1.0, 0.5, -3.0]]), torch.tensor([0])
    assert [loss(scores, labels).item() for loss in LOSSES] == pytest.approx([0.5, 0.5, 0.5])


def whole_map(baseline, maps, loss):
    """The same training on W_k [F, A] itself, without coordinates of the span."""
    features, labels = planted_images(SEEN)
    _, features = FeaturePreparation.fit(features, np.float64)
    features, labels = torch.from_numpy(features), torch.from_numpy(labels)
    semantics = torch.from_numpy(unit_rows(planted_semantics().astype(np.float64)))[: len(SEEN)]
    maps = maps.clone().requires_grad_()
    generator = torch.Generator().manual_seed(baseline.seed)
    torch.randn(_drawn(baseline, semantics), generator=generator)  # initial weights come first
    for _ in range(baseline.epochs):
        order = torch.randperm(len(features), generator=generator)
        for batch in order.split(baseline.batch_size):
            scores = (features[batch] @ maps @ semantics.T).amax(dim=0)
            (slope,) = torch.autograd.grad(loss(scores, labels[batch]).mean(), maps)
            maps = (maps - baseline.learning_rate * slope).detach().requires_grad_()
    return maps.detach()


def _drawn(baseline, semantics):
    if not isinstance(baseline, LatEm):
        return 0
    return baseline.maps * FEATURES * torch.linalg.matrix_rank(semantics).item()


@pytest.mark.parametrize(
    ("baseline", "loss"),
    [
        (DeViSE(epochs=3, learning_rate=0.3, batch_size=32), hinge_rank_loss),
        (ALE(epochs=3, learning_rate=0.3, batch_size=32), weighted_ranking_loss),
        (SJE(epochs=3, learning_rate=0.3, batch_size=32), structured_hinge_loss),
    ],
    ids=["devise", "ale", "sje"],
)
@pytest.mark.parametrize("classes", [24, 5])
def test_steps_are_those_of_the_whole_map(baseline, loss, classes, monkeypatch):
    """More and fewer seen classes than attributes."""
    monkeypatch.setitem(globals(), "SEEN", np.arange(classes))
    baseline.fit(*planted_images(SEEN), planted_semantics())
    maps = whole_map(baseline, torch.zeros(1, FEATURES, ATTRIBUTES, dtype=torch.float64), loss)
    weights, basis = baseline.module_.weights.detach(), baseline.module_.basis
    assert basis.shape == (ATTRIBUTES, min(classes, ATTRIBUTES))
    torch.testing.assert_close((weights @ basis.T).double(), maps[0], rtol=1e-3, atol=1e-4)


def test_latem_steps_are_those_of_the_whole_maps():
    """Steps of the map that is best for the true class, and of the best for each wrong class."""
    options = {"learning_rate": 0.3, "batch_size": 32, "maps": 3}
    baseline = LatEm(epochs=2, **options)
    semantics = planted_semantics()
    baseline.fit(*planted_images(SEEN), semantics)
    basis = baseline.module_.basis
    drawn = torch.randn(3, FEATURES, basis.shape[1], generator=torch.Generator().manual_seed(0))
    start = (drawn / FEATURES**0.5 @ basis.T).double()
    maps = whole_map(baseline, start, hinge_rank_loss)
    weights = baseline.module_.weights.detach().unflatten(1, (3, -1)).transpose(0, 1)
    torch.testing.assert_close((weights @ basis.T).double(), maps, rtol=1e-3, atol=1e-4)


def test_latem_takes_the_best_map_of_every_pair():
    baseline = LatEm(maps=3, epochs=1).fit(*planted_images(SEEN), planted_semantics())
    features = planted_images(SEEN, rows=1, seed=1)[0]
    module = baseline.module_
    prepared = torch.from_numpy(baseline.preparation_.apply(features))
    semantics = torch.from_numpy(baseline.semantics_[baseline.classes_])
    each = [
        prepared @ map_ @ module.basis.T @ semantics.T
        for map_ in module.weights.detach().unflatten(1, (3, -1)).unbind(dim=1)
    ]
    chosen = torch.stack(each).max(dim=0)
    assert len(chosen.indices.unique()) == 3
    scores = torch.from_numpy(baseline.decision_function(features)).float()
    torch.testing.assert_close(scores, chosen.values)


def test_latem_of_one_map_is_devise_from_another_start():
    """With the same shuffles, the initial weights are forgotten."""
    latem = LatEm(maps=1, epochs=30, learning_rate=0.3)
    devise = DeViSE(epochs=30, learning_rate=0.3)
    unseen = planted_images(np.arange(24, 30), seed=1)[0]
    predictions = [
        baseline.fit(*planted_images(SEEN), planted_semantics()).predict(unseen)
        for baseline in (latem, devise)
    ]
    assert (predictions[0] == predictions[1]).mean() > 0.97


@pytest.mark.parametrize("maps", [0, 2.0, "2"])
def test_latem_rejects_numbers_of_maps(maps):
    with pytest.raises(ValueError, match="maps: expected an integer above 0, got"):
        LatEm(maps=maps).fit(*planted_images(SEEN), planted_semantics())
