"""DeViSE, ALE, SJE and LatEm: losses by explicit loops, and their steps on the whole map."""

import numpy as np
import pytest
import torch
from planted_data import ATTRIBUTES, FEATURES, SEEN, planted_images, planted_semantics
from systems_helpers import fit_system, prepared, scores

from mcfa_fast.systems.ale import weighted_ranking_loss
from mcfa_fast.systems.devise import hinge_rank_loss
from mcfa_fast.systems.layers import unit_rows
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


def fit(name, classes=SEEN, **options):
    return fit_system(name, planted_images(classes), planted_semantics(), **options)


def whole_map(system, maps, loss, classes=SEEN):
    """The same training on W_k [F, A] itself, without coordinates of the span."""
    features, labels = planted_images(classes)
    features = unit_rows(features.astype(np.float64))
    features = torch.from_numpy(features - features.mean(axis=0))
    labels = torch.from_numpy(labels)
    semantics = torch.from_numpy(unit_rows(planted_semantics()[classes].astype(np.float64)))
    maps = maps.clone().requires_grad_()
    training = system.config.training
    generator = torch.Generator().manual_seed(system.config.seed)
    if len(maps) > 1:  # random initial weights come first
        rank = torch.linalg.matrix_rank(semantics).item()
        torch.randn(len(maps) * FEATURES * rank, generator=generator)
    for _ in range(training.epochs):
        order = torch.randperm(len(features), generator=generator)
        for batch in order.split(training.batch_size):
            values = (features[batch] @ maps @ semantics.T).amax(dim=0)
            (slope,) = torch.autograd.grad(loss(values, labels[batch]).mean(), maps)
            maps = (maps - training.learning_rate * slope).detach().requires_grad_()
    return maps.detach()


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("devise", hinge_rank_loss),
        ("ale", weighted_ranking_loss),
        ("sje", structured_hinge_loss),
    ],
)
@pytest.mark.parametrize("count", [24, 5])
def test_steps_are_those_of_the_whole_map(name, loss, count):
    """More and fewer seen classes than attributes."""
    classes = np.arange(count)
    system = fit(name, classes, epochs=3, learning_rate=0.3, batch_size=32)
    start = torch.zeros(1, FEATURES, ATTRIBUTES, dtype=torch.float64)
    maps = whole_map(system, start, loss, classes)
    module = system.compatibility
    assert module.basis.shape == (ATTRIBUTES, min(count, ATTRIBUTES))
    learned = (module.maps.detach() @ module.basis.T).double()
    torch.testing.assert_close(learned, maps[0], rtol=1e-3, atol=1e-4)


def test_latem_steps_are_those_of_the_whole_maps():
    """Steps of the map that is best for the true class, and of the best for each wrong class."""
    system = fit("latem", maps=3, epochs=2, learning_rate=0.3, batch_size=32)
    basis = system.compatibility.basis
    drawn = torch.randn(3, FEATURES, basis.shape[1], generator=torch.Generator().manual_seed(0))
    start = (drawn / FEATURES**0.5 @ basis.T).double()
    maps = whole_map(system, start, hinge_rank_loss)
    learned = system.compatibility.maps.detach().unflatten(1, (3, -1)).transpose(0, 1)
    torch.testing.assert_close((learned @ basis.T).double(), maps, rtol=1e-3, atol=1e-4)


def test_latem_takes_the_best_map_of_every_pair():
    system = fit("latem", maps=3, epochs=1)
    features = planted_images(SEEN, rows=1, seed=1)[0]
    module, semantics = system.compatibility, planted_semantics()[24:]
    unit = torch.from_numpy(unit_rows(semantics))
    each = [
        prepared(system, features) @ map_ @ module.basis.T @ unit.T
        for map_ in module.maps.detach().unflatten(1, (3, -1)).unbind(dim=1)
    ]
    chosen = torch.stack(each).max(dim=0)
    assert len(chosen.indices.unique()) == 3
    got = torch.from_numpy(scores(system, features, semantics))
    torch.testing.assert_close(got, chosen.values)


def test_latem_of_one_map_is_devise_from_another_start():
    """With the same shuffles, the initial weights are forgotten."""
    unseen = planted_images(np.arange(24, 30), seed=1)[0]
    latem, devise = (
        scores(fit(name, epochs=30, learning_rate=0.3, **maps), unseen, planted_semantics()[24:])
        for name, maps in (("latem", {"maps": 1}), ("devise", {}))
    )
    assert (latem.argmax(axis=1) == devise.argmax(axis=1)).mean() > 0.97
    assert not np.array_equal(latem, devise)
