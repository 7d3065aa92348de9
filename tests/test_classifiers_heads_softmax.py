"""The softmax classifier against a plain training loop and scikit-learn, and what it is given."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from mcfa_fast.classifiers.heads.linear_softmax import SoftmaxClassifier
from mcfa_fast.classifiers.heads.softmax import choose_images

DIM, CLASSES = 6, 3


def make_latents(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    centres = 2 * torch.randn(CLASSES, DIM, generator=generator)
    return centres[labels] + torch.randn(rows, DIM, generator=generator), labels


def new(seed=0):
    return SoftmaxClassifier(DIM, CLASSES, generator=torch.Generator().manual_seed(seed))


def weights(classifier):
    return classifier.linear.weight.detach().clone(), classifier.linear.bias.detach().clone()


def plain_loop(batches):
    """The same steps with PyTorch's textbook pieces, on batches given as row numbers."""
    layer = nn.Linear(DIM, CLASSES)
    layer.weight.data, layer.bias.data = weights(new())
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.5, 0.999))
    for latents, labels in batches:
        optimizer.zero_grad()
        nn.NLLLoss()(nn.LogSoftmax(dim=1)(layer(latents)), labels).backward()
        optimizer.step()
    return layer.weight.detach(), layer.bias.detach()


def test_autocast_does_not_reach_the_training():
    data = make_latents(40)
    found = []
    for enabled in (False, True):
        classifier = new()
        generator = torch.Generator().manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            classifier.fit(lambda: data, epochs=2, batch_size=16, generator=generator)
        found.append(weights(classifier))
    for inside, outside in zip(*found, strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("rows", [40, 32, 13, 1])
def test_equals_a_plain_loop(rows, drop_last):
    """drop_last: a shuffle per epoch, cut; otherwise shuffles in a row, in full batches."""
    latents, labels = make_latents(rows)
    epochs, size = 5, min(16, rows)
    generator = torch.Generator().manual_seed(3)
    shuffles = [torch.randperm(rows, generator=generator) for _ in range(3 * epochs)]
    if drop_last:
        kept = rows // size * size
        cut = [batch for order in shuffles[:epochs] for batch in order[:kept].split(size)]
    else:
        steps = -(-rows // size)
        cut = torch.cat(shuffles)[: epochs * steps * size].split(size)
    wanted = plain_loop((latents[chosen], labels[chosen]) for chosen in cut)
    classifier = new()
    classifier.fit(
        lambda: (latents, labels),
        epochs=epochs,
        batch_size=16,
        drop_last=drop_last,
        generator=torch.Generator().manual_seed(3),
    )
    for ours, theirs in zip(weights(classifier), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_draws_once_per_epoch_and_trains_on_what_it_drew():
    drawn = []

    def draw():
        drawn.append(make_latents(16, seed=len(drawn)))
        return drawn[-1]

    classifier = new()
    classifier.fit(draw, epochs=4, batch_size=16, generator=torch.Generator().manual_seed(0))
    assert len(drawn) == 4
    # One batch per epoch: the order within it does not matter.
    for ours, theirs in zip(weights(classifier), plain_loop(drawn), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_learns_what_logistic_regression_learns():
    latents, labels = make_latents(300)
    classifier = new()
    classifier.fit(
        lambda: (latents, labels),
        epochs=100,
        learning_rate=1e-2,
        generator=torch.Generator().manual_seed(0),
    )
    linear = LogisticRegression().fit(latents.numpy(), labels.numpy())
    agreement = classifier(latents).argmax(1).numpy() == linear.predict(latents.numpy())
    assert agreement.mean() > 0.97


def test_gives_log_probabilities():
    torch.testing.assert_close(new()(make_latents(5)[0]).exp().sum(1), torch.ones(5))


def test_initial_weights():
    classifier = SoftmaxClassifier(300, 200, generator=torch.Generator().manual_seed(0))
    limit = 0.5 * (6 / (300 + 200)) ** 0.5  # Xavier-uniform with gain 0.5
    weight, bias = weights(classifier)
    assert 0.99 * limit < weight.abs().max() <= limit
    assert weight.mean().abs() < 0.02 * limit
    assert not bias.any()


def test_monitor_keeps_the_first_best_epoch():
    latents, labels = make_latents(40)
    values, seen = [0.1, 0.7, 0.3, 0.7, 0.2], []

    def monitor(epoch, classifier):
        seen.append(weights(classifier)[0])
        return values[epoch - 1]

    classifier = new()
    generator = torch.Generator().manual_seed(0)
    classifier.fit(lambda: (latents, labels), epochs=5, generator=generator, monitor=monitor)
    assert len(seen) == 5
    assert torch.equal(weights(classifier)[0], seen[1])
    assert not torch.equal(seen[1], seen[4])


def test_without_monitor_keeps_the_last_epoch_and_is_reproducible():
    latents, labels = make_latents(40)
    results = []
    for _ in range(2):
        torch.rand(3)  # the global generator plays no part
        classifier = new()
        generator = torch.Generator().manual_seed(0)
        classifier.fit(lambda: (latents, labels), epochs=3, generator=generator)
        results.append(weights(classifier)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("latents", "labels"),
    [(torch.zeros(0, DIM), torch.zeros(0).long()), (torch.zeros(2, DIM), torch.zeros(3).long())],
)
def test_rejects_bad_draws(latents, labels):
    with pytest.raises(ValueError, match="draw: expected latents"):
        new().fit(lambda: (latents, labels), epochs=1, generator=torch.Generator())


# Which images stand for their classes


def test_first_images_are_taken_in_order_and_repeated_in_turn():
    labels = np.array([4, 2, 4, 4, 2, 4, 7, 4, 4])
    rows, counts = choose_images(labels, per_class=5, choice="first", generator=torch.Generator())
    drawn = rows.repeat(counts)
    expected = {2: [1, 1, 1, 4, 4], 4: [0, 2, 3, 5, 7], 7: [6, 6, 6, 6, 6]}
    for label, own in expected.items():
        assert sorted(drawn[labels[drawn] == label].tolist()) == own


def test_random_images_are_distinct_images_of_the_class():
    labels = np.repeat([3, 8], 30)
    chosen = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        rows, counts = choose_images(labels, per_class=10, choice="random", generator=generator)
        assert labels[rows].tolist() == [3] * 10 + [8] * 10
        assert counts.tolist() == [1] * 20
        assert len(set(rows.tolist())) == 20
        chosen.append(set(rows.tolist()))
    assert chosen[0] != chosen[1]
