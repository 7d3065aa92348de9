"""Training a system alone: the computation, and what it accepts."""

import warnings

import numpy as np
import pytest
import torch
from system_data import CONFIG, SEEN, SMALL, A, F, assert_same_state, differ, make_data

from mcfa_fast.systems.eszsl import ESZSLConfig
from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.training.sampler import make_sampler

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        MCFAConfig.reference("zsl", offset_window=6, **SMALL),
        MCFAConfig.paper("zsl", sampler="batch", batch_size=16, **SMALL),
        CONFIG.replace(feature_scaling="none"),
    ],
    ids=["paper", "reference", "batch", "unscaled"],
)
def test_trainer_is_the_plain_loop(config):
    config = config.replace(learning_rate=1e-2)  # large enough for every detail to matter
    features, labels, semantics = make_data()
    trainer = Trainer(config, features, labels, semantics)
    trained = trainer.fit().model

    low, high = features.min(0).values, features.max(0).values
    scaled = features if config.feature_scaling == "none" else (features - low) / (high - low)
    model = MCFA(F, A, config)
    objective = MCFALoss(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, amsgrad=True)
    sampler = make_sampler(config.training, labels, config.generator("sampler"))
    noise = config.generator("noise")
    for epoch in range(config.training.epochs):
        totals, instances = [], 0
        for rows, classes, local in sampler:
            optimizer.zero_grad()
            losses = objective(model(scaled[rows], semantics[classes], local, noise))
            losses.total.backward()
            optimizer.step()
            totals.append(losses.total.item())
            instances += len(rows)
        recorded = trainer.history[epoch]["total"]
        assert recorded == pytest.approx(sum(totals) / instances, rel=1e-4)
    for value, wanted in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-4)
    assert not trained.training


def test_training_lowers_the_loss():
    trainer = Trainer(CONFIG.replace(epochs=12, learning_rate=3e-3), *make_data())
    trainer.fit()
    history = trainer.history
    assert history[-1]["total"] < 0.8 * history[0]["total"]
    assert [metrics["epoch"] for metrics in history] == list(range(1, 13))


@pytest.mark.parametrize("device", DEVICES)
def test_weights_depend_on_arguments_only(device):
    data = make_data()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = Trainer(CONFIG, *data, device=device).fit()
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(2)
    assert_same_state(Trainer(CONFIG, *data, device=device).fit(), first)
    assert differ(Trainer(CONFIG.replace(seed=1), *data, device=device).fit(), first)


@pytest.mark.parametrize("sampler", ["episodic", "batch"])
def test_classes_without_training_rows_have_no_influence(sampler):
    features, labels, semantics = make_data()
    config = CONFIG.replace(sampler=sampler, batch_size=16)
    changed = semantics.clone()
    changed[SEEN:] = 100
    first = Trainer(config, features, labels, semantics).fit()
    assert_same_state(Trainer(config, features, labels, changed).fit(), first)
    changed[0] += 1
    assert differ(Trainer(config, features, labels, changed).fit(), first)


def test_class_numbers_may_have_gaps():
    features, labels, semantics = make_data()
    order = torch.tensor([4, 0, 5, 2, 1, 3])  # new number of each class, seen ones not in order
    moved = torch.empty_like(semantics)
    moved[order] = semantics
    trainer = Trainer(CONFIG, features, order[labels], moved)
    trainer.fit()
    assert trainer.history[-1]["vtos"] < 1.2 * np.log(3)


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("sqrt", 0.8), ("linear", 0.64)])
def test_learning_rate_scales_with_the_batch(rule, factor):
    options = {**SMALL, "sampler": "batch", "batch_size": 16}
    scaled = MCFAConfig().replace(**options, learning_rate_scaling=rule)
    rate = scaled.training.learning_rate
    assert scaled.training.scaled_learning_rate(60) == pytest.approx(factor * rate)
    plain = MCFAConfig().replace(**options, learning_rate=factor * rate)
    trained, expected = (Trainer(c, *make_data()).fit() for c in (scaled, plain))
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-6, atol=1e-7)


def test_solved_systems_have_no_history():
    features, labels, semantics = make_data()
    trainer = Trainer(ESZSLConfig(), features, labels, semantics)
    scores = trainer.fit().scores(features, semantics[:SEEN])
    assert scores.shape == (60, SEEN) and trainer.history == []
    assert (scores.argmax(1) == labels).float().mean() > 0.9


# Arguments


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, ">f4"])
def test_arrays_of_any_kind_are_accepted(dtype):
    features, labels, semantics = make_data()
    features = (features * 100).round()
    expected = Trainer(CONFIG, features, labels, semantics).fit()
    array = np.asfortranarray(features.numpy().astype(dtype))
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer(CONFIG, array, labels.numpy().astype(np.uint8), semantics.tolist())
    assert_same_state(trainer.fit(), expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": torch.zeros(3)}, ValueError, r"features: expected shape \[N, F\].*\(3,\)"),
        ({"features": torch.zeros(0, F)}, ValueError, r"features: .* got \(0, 10\)"),
        ({"features": [["a", "b"]]}, TypeError, "features: expected real numbers, got <U1"),
        ({"features": torch.zeros(60, F) * 1j}, TypeError, "features: expected real numbers"),
        ({"labels": torch.zeros(60)}, ValueError, "labels: expected integers, got dtype float32"),
        ({"labels": torch.zeros(60) > 1}, ValueError, "labels: expected integers, got dtype bool"),
        ({"labels": torch.zeros(59, dtype=int)}, ValueError, r"labels: expected shape \(60,\)"),
        ({"labels": torch.full((60,), 6)}, ValueError, r"labels: row 0 has label 6, .* 0\.\.5"),
        ({"labels": torch.full((60,), -1)}, ValueError, r"labels: row 0 has label -1"),
        ({"semantics": torch.zeros(A)}, ValueError, "semantics: expected shape"),
        ({"semantics": torch.full((6, A), torch.nan)}, ValueError, "semantics: .*class 0 is NaN"),
    ],
)
def test_wrong_data_is_refused_by_name(changes, error, message):
    data = dict(zip(("features", "labels", "semantics"), make_data(), strict=True))
    with pytest.raises(error, match=message):
        Trainer(CONFIG, **{**data, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_first_row_that_is_not_finite_is_named(value):
    features, labels, semantics = make_data()
    features = features.double()
    features[[41, 17], 2] = value
    with pytest.raises(ValueError, match="features: NaN or infinity in row 17"):
        Trainer(CONFIG, features, labels, semantics).fit()
