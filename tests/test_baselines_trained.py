"""What every baseline trained by gradient steps must do."""

import pickle

import numpy as np
import pytest
import torch
from planted_data import SEEN, UNSEEN, planted_images, planted_semantics
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from mcfa_fast.baselines import ALE, CMT, SJE, SSE, DeViSE, LatEm
from mcfa_fast.systems.trained_old import margin_violations
from mcfa_fast.data import load
from mcfa_fast.experiments.methods_old import METHODS
from mcfa_fast.selection.choose import select

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINES = [
    DeViSE(learning_rate=0.3, epochs=20),
    ALE(learning_rate=0.3, epochs=20),
    SJE(learning_rate=0.3, epochs=20),
    LatEm(maps=2, learning_rate=0.3, epochs=20),
    CMT(hidden_units=60, learning_rate=1e-2, epochs=60),
    SSE(smoothing=1.0, epochs=20),
]


@pytest.fixture(params=BASELINES, ids=lambda baseline: baseline.method)
def baseline(request):
    return clone(request.param)


def fit(baseline, seed=0):
    return baseline.fit(*planted_images(SEEN, seed=seed), planted_semantics())


def unseen_scores(baseline):
    return baseline.decision_function(planted_images(UNSEEN, seed=1)[0])


def test_recovers_a_planted_compatibility(baseline):
    """Chance is 1/6."""
    accuracy = fit(baseline).score(*planted_images(UNSEEN, seed=1))
    assert accuracy > 0.95, accuracy


def test_descriptors_decide(baseline):
    """Every unseen class gets the descriptor of another one."""
    baseline = fit(baseline)
    baseline.semantics_[UNSEEN] = baseline.semantics_[np.roll(UNSEEN, 1)]
    assert baseline.score(*planted_images(UNSEEN, seed=1)) < 0.1


def test_seen_classes_are_told_apart(baseline):
    baseline.set_params(task="gzsl")
    accuracy = fit(baseline).score(*planted_images(SEEN, seed=1), candidates=SEEN)
    assert accuracy > 0.8, accuracy


def test_training_lowers_the_loss(baseline):
    losses = fit(baseline).loss_curve_
    assert len(losses) == baseline.epochs
    assert losses[-1] < 0.5 * losses[0]


def test_the_seed_decides_alone(baseline):
    """Not the global generator, nor what was fitted before."""
    state = torch.random.get_rng_state()
    first = unseen_scores(fit(baseline))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    fit(baseline, seed=5)
    again = unseen_scores(fit(baseline))
    np.testing.assert_array_equal(again, first)
    other = unseen_scores(fit(clone(baseline).set_params(seed=1)))
    assert not np.array_equal(other, first)


def test_a_path_gives_what_single_fits_give(baseline):
    """Going on with a training, starting anew for fewer epochs, and for other options."""
    rate = baseline.learning_rate
    grid = [
        {"learning_rate": rate, "epochs": 2},
        {"learning_rate": rate, "epochs": 5},
        {"learning_rate": rate / 2, "epochs": 5},
        {"learning_rate": rate / 2, "epochs": 3},
    ]
    images = planted_images(SEEN)
    path = baseline.fit_path(*images, planted_semantics(), grid)
    for parameters, fitted in zip(grid, path, strict=True):
        single = fit(clone(baseline).set_params(**parameters))
        assert fitted.loss_curve_ == single.loss_curve_
        np.testing.assert_array_equal(unseen_scores(fitted), unseen_scores(single))


def test_a_path_trains_each_epoch_once(baseline, monkeypatch):
    epochs = []
    original = type(baseline)._train_epoch

    def count(self, run, problem):
        epochs.append(len(run.losses))
        return original(self, run, problem)

    monkeypatch.setattr(type(baseline), "_train_epoch", count)
    grid = [{"epochs": 1}, {"epochs": 3}, {"epochs": 4}]
    for _ in baseline.fit_path(*planted_images(SEEN), planted_semantics(), grid):
        pass
    assert epochs == [0, 1, 2, 3]


def test_scores_do_not_depend_on_the_other_rows_and_candidates(baseline):
    baseline = fit(baseline.set_params(task="gzsl"))
    features = planted_images(UNSEEN, rows=3, seed=1)[0]
    scores = baseline.decision_function(features)
    alone = baseline.decision_function(features[4:5], candidates=UNSEEN[2:3])
    np.testing.assert_allclose(alone[0, 0], scores[4, UNSEEN[2]], rtol=1e-4, atol=1e-5)


def test_pickled_and_unpickled_predicts_the_same(baseline):
    fitted = fit(baseline)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(unseen_scores(copy), unseen_scores(fitted))


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None])
@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_rejects_counts(baseline, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected an integer above 0, got"):
        fit(baseline.set_params(**{name: value}))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "fast", None])
def test_rejects_learning_rates(baseline, value):
    with pytest.raises(ValueError, match="learning_rate: expected a finite number above 0, got"):
        fit(baseline.set_params(learning_rate=value))


def test_rejects_a_seed(baseline):
    with pytest.raises(ValueError, match="seed: expected an integer 0 or more, got -1"):
        fit(baseline.set_params(seed=-1))


def test_a_training_that_diverges_warns_and_gives_no_finite_scores():
    """So that it is seen by a user, and never chosen among others."""
    with pytest.warns(ConvergenceWarning, match=r"learning_rate: expected less than 1e\+30"):
        diverged = fit(CMT(learning_rate=1e30))
    assert not np.isfinite(unseen_scores(diverged)).any()
    grid = [{"learning_rate": 1e30}, {"learning_rate": 1e-2}]
    with pytest.warns(ConvergenceWarning):
        selection = select(CMT(), grid, *planted_images(SEEN), planted_semantics())
    assert selection.parameters == grid[1]


TRAINED = [name for name, method in METHODS.items() if method.group == "trained"]


def test_every_trained_baseline_is_among_the_methods():
    assert {METHODS[name].estimator for name in TRAINED} == {type(each) for each in BASELINES}
    assert all(METHODS[name].estimator.method == name for name in TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_grids(name):
    """Small; in the order in which a path goes on; around the default, which is among them."""
    method = METHODS[name]
    assert len(method.settings) <= 6
    assert list(method.grid)[-1] == "epochs"
    assert list(method.grid["epochs"]) == sorted(method.grid["epochs"])
    defaults = method.estimator().get_params()
    assert {key: defaults[key] for key in method.grid} in method.settings


@pytest.mark.parametrize("name", TRAINED)
def test_runs_as_a_method_of_a_comparison(name, tmp_path):
    digits = load("digits")
    (outcome,) = METHODS[name].run(digits, "7/3:0", "zsl", 3, device="cpu", folder=tmp_path)
    chosen = {key: outcome.chosen[key] for key in METHODS[name].grid}
    assert chosen in METHODS[name].settings
    split = digits.split("7/3:0", generalized=False)
    baseline = METHODS[name].estimator(seed=3, **chosen)
    baseline.fit(digits.features[split.train], digits.labels[split.train], digits.semantics)
    rows = split.test_unseen
    assert outcome.evaluation.accuracy == baseline.score(digits.features[rows], digits.labels[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(baseline):
    """The same weights and shuffles at the start; only rounding differs."""
    wanted = fit(clone(baseline).set_params(epochs=1)).loss_curve_
    on_gpu = fit(clone(baseline).set_params(epochs=1, device="cuda"))
    np.testing.assert_allclose(on_gpu.loss_curve_, wanted, rtol=1e-3)
    baseline = fit(baseline.set_params(device="cuda"))
    assert baseline.score(*planted_images(UNSEEN, seed=1)) > 0.9
    again = fit(clone(baseline))
    np.testing.assert_array_equal(unseen_scores(again), unseen_scores(baseline))


def test_margin_violations_by_explicit_pairs():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 5, generator=generator)
    labels = torch.randint(5, (7,), generator=generator)
    margins = torch.rand(7, 5, generator=generator)
    violations = margin_violations(scores, labels, margins)
    for n in range(7):
        for y in range(5):
            lack = margins[n, y] + scores[n, y] - scores[n, labels[n]]
            wanted = 0.0 if y == labels[n] else max(0.0, lack.item())
            assert violations[n, y].item() == pytest.approx(wanted, abs=1e-6)
