"""The scikit-learn style classifier: what it predicts, keeps, saves and refuses."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import MCFAClassifier, RunConfig, ZeroShotClassifier
from mcfa_fast.classifiers.heads.linear_softmax import SoftmaxClassifier
from mcfa_fast.systems.dual_encoder import DualEncoderConfig
from mcfa_fast.systems.mcfa import MCFAConfig
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.training import loop

HEADS = ("softmax", "nearest", "ensemble")
SEMANTICS = make_semantics()[:NEW]
NAMES = tuple("abcdefghijkl")
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST_UNSEEN = make_images(UNSEEN, rows=30, seed=9)
TEST_ALL = make_images(np.arange(NEW), rows=10, seed=9)


pytestmark = pytest.mark.usefixtures("one_thread")


def new(task, **options):
    classifier = ZeroShotClassifier(config(task, **options))
    return classifier.fit(IMAGES, LABELS, SEMANTICS, class_names=NAMES)


@pytest.fixture(scope="module")
def files(one_thread, tmp_path_factory):
    """A saved classifier per task; every test loads its own."""
    folder = tmp_path_factory.mktemp("classifiers")
    for task in ("zsl", "gzsl"):
        new(task).save(folder / task)
    return folder


@pytest.fixture(params=["zsl", "gzsl"])
def task(request):
    return request.param


@pytest.fixture(params=HEADS)
def head(request):
    return request.param


@pytest.fixture
def classifier(files, task, head):
    return ZeroShotClassifier.load(files / task).with_head(head)


@pytest.fixture
def generalized(files, head):
    return ZeroShotClassifier.load(files / "gzsl").with_head(head)


def encode(classifier, images=TEST_ALL[0]):
    with torch.no_grad():
        return classifier.system_.model.encode_visual(torch.tensor(images))[0]


def similarities(classifier, images=TEST_ALL[0]):
    """Cosines between image and class latents, from the model alone, in float64."""
    with torch.no_grad():
        classes = classifier.system_.model.encode_semantic(torch.tensor(SEMANTICS))[0]
    unit = [
        part.double() / part.double().norm(dim=1)[:, None]
        for part in (encode(classifier, images), classes)
    ]
    return (unit[0] @ unit[1].T).numpy()


# Predictions


def test_solves_the_problem(classifier, task):
    images, labels = TEST_UNSEEN
    assert classifier.score(images, labels, candidates=UNSEEN) > 0.9
    if task == "gzsl":
        rows = np.isin(TEST_ALL[1], SEEN)
        assert classifier.score(TEST_ALL[0][rows], TEST_ALL[1][rows]) > 0.7


def test_default_candidates_follow_the_task(classifier, task):
    expected = UNSEEN if task == "zsl" else np.arange(NEW)
    assert np.array_equal(classifier.classes_, expected)
    assert classifier.decision_function(TEST_ALL[0]).shape == (len(TEST_ALL[0]), len(expected))
    assert set(classifier.predict(TEST_ALL[0])) <= set(expected.tolist())
    assert np.array_equal(classifier.seen_classes_, SEEN)
    assert np.array_equal(classifier.unseen_classes_, UNSEEN)
    assert classifier.n_features_in_ == IMAGES.shape[1]
    assert classifier.class_names_ == NAMES


def test_softmax_scores_are_those_of_its_linear_layer(files, task):
    classifier = ZeroShotClassifier.load(files / task)
    layer = classifier.heads_["softmax"].layer.linear
    logits = (encode(classifier) @ layer.weight.T + layer.bias).double()
    wanted = logits - logits.exp().sum(dim=1, keepdim=True).log()
    scores = classifier.decision_function(TEST_ALL[0])
    np.testing.assert_allclose(scores, wanted.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        classifier.predict_proba(TEST_ALL[0]), wanted.exp().detach().numpy(), atol=1e-5
    )


def test_nearest_scores_are_cosines(files, task):
    classifier = ZeroShotClassifier.load(files / task).with_head("nearest")
    wanted = similarities(classifier)[:, classifier.classes_]
    np.testing.assert_allclose(classifier.decision_function(TEST_ALL[0]), wanted, atol=1e-5)
    exponentials = np.exp(wanted / classifier.run_.options.temperature)
    np.testing.assert_allclose(
        classifier.predict_proba(TEST_ALL[0]),
        exponentials / exponentials.sum(axis=1, keepdims=True),
        atol=1e-5,
    )


def test_predictions_probabilities_and_score_agree(classifier):
    images, labels = TEST_UNSEEN
    predictions = classifier.predict(images)
    probabilities = classifier.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(classifier.classes_[probabilities.argmax(axis=1)], predictions)
    per_class = [np.mean(predictions[labels == c] == c) for c in UNSEEN]
    assert classifier.score(images, labels) == pytest.approx(np.mean(per_class))


def test_candidates_choose_columns(generalized):
    every = generalized.decision_function(TEST_ALL[0])
    chosen = generalized.decision_function(TEST_ALL[0], candidates=[11, 3])
    assert np.array_equal(chosen, every[:, [11, 3]])
    by_name = generalized.decision_function(TEST_ALL[0], candidates=["l", "d"])
    assert np.array_equal(chosen, by_name)
    predictions = generalized.predict(TEST_ALL[0], candidates=np.array([11, 3]))
    assert np.array_equal(predictions, np.where(every[:, 11] >= every[:, 3], 11, 3))


def test_nearest_of_task_zsl_knows_seen_classes_and_softmax_says_it_does_not(files):
    classifier = ZeroShotClassifier.load(files / "zsl")
    with pytest.raises(ValueError, match="class 3 is a seen class, which the head 'softmax' of"):
        classifier.predict(TEST_ALL[0], candidates=[3, 11])
    classifier = classifier.with_head("nearest")
    rows = np.isin(TEST_ALL[1], SEEN)
    assert classifier.score(TEST_ALL[0][rows], TEST_ALL[1][rows], candidates=SEEN) > 0.7


def test_calibration_is_subtracted_from_seen_classes(generalized):
    raw = generalized.decision_function(TEST_ALL[0])
    for calibration in (-0.4, 0.3):
        generalized.set_params(calibration=calibration)
        wanted = raw.copy()
        wanted[:, SEEN] -= calibration
        assert np.array_equal(generalized.decision_function(TEST_ALL[0]), wanted)
        assert np.array_equal(generalized.predict(TEST_ALL[0]), wanted.argmax(axis=1))
    assert np.array_equal(generalized.decision_function(TEST_ALL[0], calibration=0.0), raw)
    generalized.set_params(calibration=1e3)
    assert set(generalized.predict(TEST_ALL[0])) <= set(UNSEEN.tolist())
    generalized.set_params(calibration=-1e3)
    assert set(generalized.predict(TEST_ALL[0])) <= set(SEEN.tolist())


def test_kinds_of_input_give_the_same(classifier, tmp_path):
    images = TEST_ALL[0].astype(np.float16)
    wanted = classifier.decision_function(images.astype(np.float32))
    np.save(tmp_path / "features.npy", images)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for kind in (images, mapped, torch.tensor(images), images.tolist(), images.astype(np.float64)):
        np.testing.assert_allclose(classifier.decision_function(kind), wanted, atol=1e-6)
    scaled = np.clip(np.round(10 * images), 0, 50)
    np.testing.assert_array_equal(
        classifier.predict(scaled.astype(np.uint8)), classifier.predict(scaled)
    )


# Training


def test_fit_is_reproducible_and_leaves_the_global_generators_alone(files, task):
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    again = new(task)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    saved = ZeroShotClassifier.load(files / task)
    for head in HEADS:
        wanted = saved.with_head(head).decision_function(TEST_ALL[0])
        assert np.array_equal(again.with_head(head).decision_function(TEST_ALL[0]), wanted)


def test_fitting_the_heads_of_a_trained_system_equals_fit(files, task):
    run = config(task)
    system = Trainer(run.options, IMAGES, LABELS, SEMANTICS).fit()
    images = torch.tensor(IMAGES).tolist()
    other = ZeroShotClassifier(run).fit_heads(system, images, LABELS.tolist(), SEMANTICS.tolist())
    saved = ZeroShotClassifier.load(files / task)
    assert other.class_names_[3] == "class_3"
    for head in HEADS:
        ours, theirs = (
            one.with_head(head).decision_function(TEST_ALL[0]) for one in (other, saved)
        )
        assert np.array_equal(ours, theirs)


def test_heads_of_another_system_are_refused():
    system = Trainer(DualEncoderConfig().replace(epochs=1), IMAGES, LABELS, SEMANTICS).fit()
    with pytest.raises(ValueError, match="system: expected a trained mcfa, got dual-encoder"):
        MCFAClassifier().fit_heads(system, IMAGES, LABELS, SEMANTICS)


def test_default_configurations():
    assert MCFAClassifier().run_config() == RunConfig.of("mcfa", preset="paper")
    assert ZeroShotClassifier().run_config() == RunConfig.of("dual-encoder", preset="recommended")
    given = MCFAClassifier(MCFAConfig.paper("gzsl", epochs=3), task="gzsl", seed=5).run_config()
    assert given.options == MCFAConfig.paper("gzsl", epochs=3, seed=5)
    whole = config("gzsl")
    assert ZeroShotClassifier(whole).run_config() == whole
    changed = ZeroShotClassifier(whole, options={"epochs": 2}, head="nearest", seed=1).run_config()
    assert changed == whole.replace({"epochs": 2}).with_arguments(head="nearest", seed=1)


def test_monitor_keeps_the_best_epoch(task):
    run = config(task, epochs=5)
    system = Trainer(run.options, IMAGES, LABELS, SEMANTICS).fit()
    states = []

    def monitor(epoch, head):
        states.append(head.scores(torch.tensor(TEST_ALL[0])))
        return -abs(epoch - 3)

    classifier = ZeroShotClassifier(run)
    classifier.fit_heads(system, IMAGES, LABELS, SEMANTICS, monitor=monitor)
    assert len(states) == 10
    assert np.array_equal(classifier.decision_function(TEST_ALL[0]), states[2].double())


@pytest.mark.parametrize("resample", [True, False])
def test_samples_are_drawn_anew_only_if_wanted(resample, monkeypatch):
    drawn = []
    original = SoftmaxClassifier.fit

    def spy(self, draw, **options):
        drawn.extend([draw()[0], draw()[0]])
        return original(self, draw, **options)

    monkeypatch.setattr(SoftmaxClassifier, "fit", spy)
    new("zsl", epochs=1, **{"softmax.resample": resample})
    assert torch.equal(*drawn) is not resample


def test_classes_left_out_of_unseen_classes_are_unknown(task, head):
    classifier = ZeroShotClassifier(config(task, head=head, epochs=2))
    classifier.fit(IMAGES, LABELS, SEMANTICS, class_names=NAMES, unseen_classes=[11])
    assert 10 not in classifier.classes_ and 11 in classifier.classes_
    assert 10 not in classifier.predict(TEST_ALL[0])
    with pytest.raises(ValueError, match="'k' was neither a seen nor an unseen class"):
        classifier.predict(TEST_ALL[0], candidates=[10, 11])


def test_selection_by_test_images_warns_that_fit_has_none():
    options = {"epochs": 1, "softmax.epochs": 1}
    classifier = ZeroShotClassifier("mcfa", preset="reference", options=options)
    with pytest.warns(UserWarning, match="the last epoch is kept"):
        classifier.fit(IMAGES, LABELS, SEMANTICS)


# Heads


def test_a_view_with_another_head_shares_all_that_was_fitted(files):
    classifier = ZeroShotClassifier.load(files / "gzsl")
    scores = classifier.decision_function(TEST_ALL[0])
    view = classifier.with_head("nearest")
    assert view.fitted_ is classifier.fitted_ and view.run_ is classifier.run_
    assert view.head_ is classifier.heads_["nearest"]
    assert (view.head, classifier.head) == ("nearest", None)
    assert not np.array_equal(view.decision_function(TEST_ALL[0]), scores)
    assert np.array_equal(classifier.decision_function(TEST_ALL[0]), scores)
    assert np.array_equal(view.with_head("softmax").decision_function(TEST_ALL[0]), scores)


def test_classes_added_to_one_view_are_not_added_to_another(files):
    classifier = ZeroShotClassifier.load(files / "gzsl")
    view = classifier.with_head("nearest")
    classifier.add_classes(["new"], make_semantics()[NEW:])
    assert (len(classifier.classes_), len(view.classes_)) == (NEW + 1, NEW)
    assert view.class_names_ == NAMES
    assert set(view.predict(TEST_ALL[0])) <= set(range(NEW))


def test_unknown_head(files):
    with pytest.raises(ValueError, match="head: mcfa has softmax, .* got 'forest'"):
        ZeroShotClassifier.load(files / "zsl").with_head("forest")
    with pytest.raises(ValueError, match="head: mcfa has softmax, .* got 'forest'"):
        ZeroShotClassifier("mcfa", head="forest").fit(IMAGES, LABELS, SEMANTICS)
    with pytest.raises(ValueError, match="head: mcfa has softmax, .* got 'forest'"):
        ZeroShotClassifier.load(files / "zsl").set_params(head="forest").predict(IMAGES)


# scikit-learn's manners


def test_parameters_and_clone(classifier):
    classifier.set_params(calibration=0.1)
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    assert set(copy.get_params(deep=False)) == {
        "system",
        "task",
        "preset",
        "head",
        "options",
        "seed",
        "calibration",
        "weight",
        "rejection_rate",
        "threshold",
        "device",
        "run_dir",
        "progress",
    }
    assert is_classifier(copy)
    with pytest.raises(NotFittedError):
        copy.predict(TEST_ALL[0])
    with pytest.raises(ValueError, match="Invalid parameter 'gamma'"):
        copy.set_params(gamma=1)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.predict(IMAGES),
        lambda c: c.predict_proba(IMAGES),
        lambda c: c.decision_function(IMAGES),
        lambda c: c.score(IMAGES, LABELS),
        lambda c: c.add_classes(["x"], SEMANTICS[:1]),
        lambda c: c.save("nowhere"),
        lambda c: c.classes_,
        lambda c: c.n_features_in_,
        lambda c: c.heads_,
    ],
)
def test_before_fit(use):
    with pytest.raises(NotFittedError):
        use(ZeroShotClassifier())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": IMAGES[:, 0]}, r"features: expected shape \[N, F\]"),
        ({"features": IMAGES[:0], "labels": LABELS[:0]}, r"features: expected shape \[N, F\]"),
        ({"features": IMAGES.astype(str)}, "features: expected real numbers"),
        ({"features": np.where(IMAGES == IMAGES[7, 2], np.nan, IMAGES)}, "features: .*row 7"),
        ({"labels": LABELS[:-1]}, "labels: expected shape"),
        ({"labels": LABELS + 3}, "labels: row .* has label 12"),
        ({"labels": LABELS / 2}, "labels: expected integers"),
        ({"labels": np.arange(200) % 12}, "every class has training rows"),
        ({"semantics": SEMANTICS[0]}, "semantics: expected shape"),
        ({"class_names": NAMES[1:]}, "class_names: expected 12, one per class, got 11"),
        ({"class_names": ("a",) * 12}, "'a' occurs more than once"),
        ({"unseen_classes": [3, 11]}, "unseen_classes: class 3 has training rows"),
        ({"unseen_classes": []}, "unseen_classes: expected at least one"),
        ({"unseen_classes": [12]}, "unseen_classes: 12 is out of range"),
    ],
)
def test_fit_rejects_before_training(change, message, monkeypatch):
    monkeypatch.setattr(loop, "_run_epoch", lambda *_: pytest.fail("trained"))
    arguments = {"features": IMAGES, "labels": LABELS, "semantics": SEMANTICS, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        ZeroShotClassifier(config("zsl")).fit(**arguments)


def test_fit_rejects_a_generalized_task_without_samples_of_seen_classes():
    with pytest.raises(ValueError, match="softmax.seen_samples: expected 1 or more"):
        config("gzsl", **{"softmax.seen_samples": 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": IMAGES[:, 1:]}, "features: expected 12 columns, got 11"),
        ({"features": np.full((2, 12), np.inf)}, "features: NaN or infinity in row 0"),
        ({"candidates": []}, "candidates: expected at least one"),
        ({"candidates": [10, 10]}, "candidates: 10 occurs more than once"),
        ({"candidates": [10, 12]}, "candidates: 12 is out of range"),
        ({"candidates": ["zebra"]}, "candidates: there is no class 'zebra'"),
        ({"candidates": [1.5]}, "candidates: expected a flat list of integers"),
    ],
)
def test_predict_rejects(classifier, arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(**{"features": IMAGES, **arguments})
