"""What every system trained by gradient steps on a compatibility must do."""

import numpy as np
import pytest
import torch
from planted_data import SEEN, UNSEEN, planted_images, planted_semantics
from systems_helpers import config_of, fit_system, make_system, scores, settings

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.data import load
from mcfa_fast.data.inputs import training_data
from mcfa_fast.systems.compatibility import CompatibilityTraining, margin_violations
from mcfa_fast.systems.fit import fit, fit_path
from mcfa_fast.systems.registry import SYSTEMS, find

pytestmark = pytest.mark.usefixtures("one_thread")

SEMANTICS = planted_semantics()
OPTIONS = {
    "devise": {"learning_rate": 0.3, "epochs": 20},
    "ale": {"learning_rate": 0.3, "epochs": 20},
    "sje": {"learning_rate": 0.3, "epochs": 20},
    "latem": {"maps": 2, "learning_rate": 0.3, "epochs": 20},
    "cmt": {"hidden_units": 60, "learning_rate": 1e-2, "epochs": 60},
    "sse": {"smoothing": 1.0, "epochs": 20},
}
NAMES = [*OPTIONS]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def images(seed=0):
    return training_data(*planted_images(SEEN, seed=seed), SEMANTICS, None, None)


def fitted(name, seed=0, **options):
    """A system with the options above, and changes."""
    data = planted_images(SEEN, seed=seed)
    return fit_system(name, data, SEMANTICS, **{**OPTIONS[name], **options})


def history(name, **options):
    system = make_system(name, images(), **{**OPTIONS[name], **options})
    return [row["total"] for row in fit(system, images())]


def unseen_scores(system):
    return scores(system, planted_images(UNSEEN, seed=1)[0], SEMANTICS[UNSEEN])


def accuracy(system, classes, semantics=SEMANTICS):
    features, labels = planted_images(classes, seed=1)
    found = scores(system, features, semantics[classes]).argmax(axis=1)
    return (classes[found] == labels).mean()


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_recovers_a_planted_compatibility(name):
    """Chance is 1/6. The descriptors decide, each class having that of another one in the end."""
    system = fitted(name)
    assert accuracy(system, UNSEEN) > 0.95
    assert accuracy(system, SEEN) > 0.8
    swapped = SEMANTICS.copy()
    swapped[UNSEEN] = swapped[np.roll(UNSEEN, 1)]
    assert accuracy(system, UNSEEN, swapped) < 0.1


def test_training_lowers_the_loss(name):
    losses = history(name)
    assert len(losses) == OPTIONS[name]["epochs"]
    assert losses[-1] < 0.5 * losses[0]


def test_the_seed_decides_alone(name):
    """Not the global generator, nor what was fitted before."""
    state = torch.random.get_rng_state()
    first = unseen_scores(fitted(name, epochs=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    fitted(name, seed=5, epochs=1)
    np.testing.assert_array_equal(unseen_scores(fitted(name, epochs=3)), first)
    options = {**OPTIONS[name], "epochs": 3, "seed": 1}
    other = fit_system(name, planted_images(SEEN), SEMANTICS, **options)
    assert not np.array_equal(unseen_scores(other), first)


def test_a_path_gives_what_single_fits_give(name):
    """Going on with a training, starting anew for fewer epochs, and for other options."""
    rate = config_of(name, **OPTIONS[name]).training.learning_rate
    grid = [
        {"learning_rate": rate, "epochs": 2},
        {"learning_rate": rate, "epochs": 5},
        {"learning_rate": rate / 2, "epochs": 5},
        {"learning_rate": rate / 2, "epochs": 3},
    ]
    configs = [config_of(name, **{**OPTIONS[name], **setting}) for setting in grid]
    path = fit_path(find(name).system, configs, images())
    for setting, system in zip(grid, path, strict=True):
        assert same_state(system, fitted(name, **setting))


def test_a_path_trains_each_epoch_once(name, monkeypatch):
    epochs = []
    original = CompatibilityTraining.epoch
    monkeypatch.setattr(
        CompatibilityTraining,
        "epoch",
        lambda self, number, world: epochs.append(number) or original(self, number, world),
    )
    configs = [config_of(name, epochs=count) for count in (1, 3, 4)]
    for _ in fit_path(find(name).system, configs, images()):
        pass
    assert epochs == [1, 2, 3, 4]


@pytest.mark.parametrize("last", [1, 3])
def test_a_killed_training_goes_on_bitwise(name, last, tmp_path):
    options = {**OPTIONS[name], "epochs": 4}

    def kill(epoch):
        if epoch == last + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_system(name, images(), **options), images(), run_dir=tmp_path, on_epoch_end=kill)
    resumed, whole = make_system(name, images(), **options), fitted(name, epochs=4)
    trained = []
    fit(resumed, images(), run_dir=tmp_path, on_epoch_end=trained.append)
    assert trained == [*range(last + 1, 5)]
    assert same_state(resumed, whole)
    np.testing.assert_array_equal(unseen_scores(resumed), unseen_scores(whole))


def test_features_may_stay_in_their_file(name, tmp_path):
    features, labels = planted_images(SEEN)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    data = training_data(mapped, labels, SEMANTICS, None, None)
    streamed = make_system(name, data, **{**OPTIONS[name], "epochs": 3})
    fit(streamed, data, resident=False)
    assert same_state(streamed, fitted(name, epochs=3))


def test_a_state_is_all_that_was_learned(name):
    system = fitted(name, epochs=2)
    copy = make_system(name, images(), **{**OPTIONS[name], "epochs": 2})
    copy.load_state_dict({key: value.clone() for key, value in system.state_dict().items()})
    np.testing.assert_array_equal(unseen_scores(copy), unseen_scores(system))


@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"sampler": "episodic"}, {"batch_size": None}], ids=str
)
def test_options_of_training(name, options):
    """Each trains, and otherwise than without it; episodes compare with all seen classes, too."""
    system = fitted(name, **options)
    assert accuracy(system, UNSEEN) > 0.5
    assert not np.array_equal(unseen_scores(system), unseen_scores(fitted(name)))


def test_learning_rates_are_scaled_by_the_batch():
    """DeViSE's epoch of one batch is one step from zero, as long as its rate."""
    options = {"epochs": 1, "batch_size": None}
    plain = fitted("devise", **options).state_dict()["maps"]
    scaled = fitted("devise", **options, learning_rate_scaling="linear").state_dict()["maps"]
    torch.testing.assert_close(scaled, plain * len(planted_images(SEEN)[1]) / 25)


def test_scores_do_not_depend_on_the_other_rows_and_classes(name):
    system = fitted(name, epochs=2)
    features = planted_images(UNSEEN, rows=3, seed=1)[0]
    together = scores(system, features, SEMANTICS)
    alone = scores(system, features[4:5], SEMANTICS[UNSEEN[2:3]])
    np.testing.assert_allclose(alone[0, 0], together[4, UNSEEN[2]], rtol=1e-4, atol=1e-5)


def test_a_training_that_diverges_is_never_chosen():
    with pytest.raises(FloatingPointError, match="try a lower learning_rate"):
        fitted("cmt", learning_rate=1e30)
    configs = [config_of("cmt", learning_rate=rate) for rate in (1e30, 1e-2)]
    first, *rest = (
        system is None for system in fit_path(find("cmt").system, configs, images())
    )
    assert first and rest == [False]


def test_every_one_is_registered():
    assert NAMES == [name for name, entry in SYSTEMS.items() if entry.group == "trained"]


def test_grids(name):
    """Small; in the order in which a path goes on; around the default, which is among them."""
    entry = find(name)
    assert len(settings(entry)) <= 6
    assert [*entry.grid][-1] == "epochs"
    assert [*entry.grid["epochs"]] == sorted(entry.grid["epochs"])
    config = config_of(name)
    defaults = {**config.model_dump(), **config.training.model_dump()}
    assert {key: defaults[key] for key in entry.grid} in settings(entry)


def test_a_setting_is_chosen_from_the_grid(name):
    digits = load("digits")
    split = digits.split("7/3:0", generalized=False)
    train = digits.features[split.train], digits.labels[split.train], digits.semantics
    rows = split.test_unseen
    chosen = ZeroShotClassifier(name, seed=3, options={"selection": "grid"}).fit(*train)
    assert chosen.selection_.setting in settings(find(name))
    options = {**chosen.selection_.setting, "selection": "none"}
    single = ZeroShotClassifier(name, seed=3, options=options).fit(*train)
    wanted = single.decision_function(digits.features[rows])
    np.testing.assert_array_equal(chosen.decision_function(digits.features[rows]), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(name):
    """The same weights and shuffles at the start; only rounding differs."""
    one = {**OPTIONS[name], "epochs": 1}
    on_gpu = make_system(name, images(), device="cuda", **one)
    losses = [row["total"] for row in fit(on_gpu, images())]
    np.testing.assert_allclose(losses, history(name, epochs=1), rtol=1e-3)
    system, again = (
        fit_system(name, planted_images(SEEN), SEMANTICS, device="cuda", **OPTIONS[name])
        for _ in range(2)
    )
    assert accuracy(system, UNSEEN) > 0.9
    assert same_state(system, again)
    streamed = make_system(name, images(), device="cuda", **one)
    fit(streamed, images(), resident=False)
    np.testing.assert_allclose(unseen_scores(streamed), unseen_scores(on_gpu), atol=1e-3)


def test_margin_violations_by_explicit_pairs():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(7, 5, generator=generator)
    labels = torch.randint(5, (7,), generator=generator)
    margins = torch.rand(7, 5, generator=generator)
    violations = margin_violations(values, labels, margins)
    for n in range(7):
        for y in range(5):
            lack = margins[n, y] + values[n, y] - values[n, labels[n]]
            wanted = 0.0 if y == labels[n] else max(0.0, lack.item())
            assert violations[n, y].item() == pytest.approx(wanted, abs=1e-6)
