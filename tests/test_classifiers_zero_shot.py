"""The scikit-learn style classifier: what it predicts, keeps, saves and refuses."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.inference import METHODS, MCFAClassifier, SoftmaxClassifier, encode_means
from mcfa_fast.training import Trainer
from mcfa_fast.storage.checkpoint import write_checkpoint

SEMANTICS = make_semantics()[:NEW]
NAMES = tuple("abcdefghijkl")
IMAGES, LABELS = make_images(SEEN, rows=20)
TEST_UNSEEN = make_images(UNSEEN, rows=30, seed=9)
TEST_ALL = make_images(np.arange(NEW), rows=10, seed=9)


pytestmark = pytest.mark.usefixtures("one_thread")


def new(task, **options):
    classifier = MCFAClassifier(config(task, **options))
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


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def classifier(files, task, method):
    return MCFAClassifier.load(files / task).set_params(method=method)


@pytest.fixture
def generalized(files, method):
    return MCFAClassifier.load(files / "gzsl").set_params(method=method)


def encode(classifier, images=TEST_ALL[0]):
    with torch.no_grad():
        return classifier.heads_.model.encode_visual(torch.tensor(images))[0]


def similarities(classifier, images=TEST_ALL[0]):
    """Cosines between image and class latents, from the model alone, in float64."""
    with torch.no_grad():
        classes = classifier.heads_.model.encode_semantic(torch.tensor(SEMANTICS))[0]
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
    classifier = MCFAClassifier.load(files / task)
    layer = classifier.heads_.softmax.linear
    logits = (encode(classifier) @ layer.weight.T + layer.bias).double()
    wanted = logits - logits.exp().sum(dim=1, keepdim=True).log()
    scores = classifier.decision_function(TEST_ALL[0])
    np.testing.assert_allclose(scores, wanted.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        classifier.predict_proba(TEST_ALL[0]), wanted.exp().detach().numpy(), atol=1e-5
    )


def test_nearest_scores_are_cosines(files, task):
    classifier = MCFAClassifier.load(files / task).set_params(method="nearest")
    wanted = similarities(classifier)[:, classifier.classes_]
    np.testing.assert_allclose(classifier.decision_function(TEST_ALL[0]), wanted, atol=1e-5)
    exponentials = np.exp(wanted / classifier.config_.temperature)
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
    classifier = MCFAClassifier.load(files / "zsl")
    with pytest.raises(ValueError, match="class 3 is a seen class, which the softmax of task"):
        classifier.predict(TEST_ALL[0], candidates=[3, 11])
    classifier.set_params(method="nearest")
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
    saved = MCFAClassifier.load(files / task)
    for method in METHODS:
        for one in (again, saved):
            one.set_params(method=method)
        wanted = saved.decision_function(TEST_ALL[0])
        assert np.array_equal(again.decision_function(TEST_ALL[0]), wanted)


def test_fit_from_model_equals_fit(files, task):
    model = Trainer(config(task), IMAGES, LABELS, SEMANTICS).fit()
    images = torch.tensor(IMAGES).tolist()
    other = MCFAClassifier().fit_from_model(model, images, LABELS.tolist(), SEMANTICS.tolist())
    saved = MCFAClassifier.load(files / task)
    assert other.class_names_[3] == "class_3"
    assert np.array_equal(
        other.decision_function(TEST_ALL[0]), saved.decision_function(TEST_ALL[0])
    )


def test_default_configuration_is_the_papers(monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda self: self.model)
    classifier = MCFAClassifier().fit(IMAGES, LABELS, SEMANTICS)
    assert classifier.config_ == MCFAConfig.paper("zsl")


def test_monitor_keeps_the_best_epoch(task):
    model = Trainer(config(task, epochs=5), IMAGES, LABELS, SEMANTICS).fit()
    latents = encode_means(model, TEST_ALL[0])
    states = []

    def monitor(epoch, heads):
        states.append(heads.scores(latents, heads.softmax_classes, "softmax"))
        return -abs(epoch - 3)

    classifier = MCFAClassifier()
    classifier.fit_from_model(model, IMAGES, LABELS, SEMANTICS, monitor=monitor)
    assert len(states) == 10
    assert np.array_equal(classifier.decision_function(TEST_ALL[0]), states[2].double())


@pytest.mark.parametrize("resample", [True, False])
def test_latents_are_resampled_only_if_wanted(resample, monkeypatch):
    drawn = []
    original = SoftmaxClassifier.fit

    def spy(self, draw, **options):
        drawn.extend([draw()[0], draw()[0]])
        return original(self, draw, **options)

    monkeypatch.setattr(SoftmaxClassifier, "fit", spy)
    new("zsl", epochs=1, resample_latents=resample)
    assert torch.equal(*drawn) is not resample


def test_classes_left_out_of_unseen_classes_are_unknown(task, method):
    classifier = MCFAClassifier(config(task, epochs=2), method=method)
    classifier.fit(IMAGES, LABELS, SEMANTICS, class_names=NAMES, unseen_classes=[11])
    assert 10 not in classifier.classes_ and 11 in classifier.classes_
    assert 10 not in classifier.predict(TEST_ALL[0])
    with pytest.raises(ValueError, match="'k' was neither a seen nor an unseen class"):
        classifier.predict(TEST_ALL[0], candidates=[10, 11])


def test_selection_by_test_images_warns_that_fit_has_none():
    classifier = MCFAClassifier(config("zsl", epochs=1, mode="reference", selection="test"))
    with pytest.warns(UserWarning, match="the last epoch is kept"):
        classifier.fit(IMAGES, LABELS, SEMANTICS)


# Classes added later


def test_added_class_is_predicted(classifier, task):
    before = classifier.decision_function(TEST_ALL[0])
    assert classifier.add_classes(["new"], make_semantics()[NEW:]) is classifier
    assert classifier.class_names_ == (*NAMES, "new")
    assert classifier.classes_[-1] == NEW == classifier.unseen_classes_[-1]
    images, labels = make_images(np.array([*UNSEEN, NEW]), rows=30, seed=9)
    predictions = classifier.predict(images, candidates=[*UNSEEN, "new"])
    for label in (*UNSEEN, NEW):
        assert np.mean(predictions[labels == label] == label) > 0.8
    if classifier.method == "nearest":  # the others' similarities stay
        after = classifier.decision_function(TEST_ALL[0])[:, :-1]
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_adding_at_once_or_after_a_search_is_the_same(files, method):
    added = []
    for search_first in (False, True):
        classifier = MCFAClassifier.load(files / "gzsl").set_params(method=method)
        if search_first:
            classifier.predict(TEST_ALL[0])
        classifier.add_classes(["new"], make_semantics()[NEW:])
        added.append(classifier.decision_function(TEST_ALL[0]))
    assert np.array_equal(*added)


@pytest.mark.parametrize(
    ("names", "semantics", "message"),
    [
        (["x", "y"], SEMANTICS[:1], "names: expected 1, one per descriptor"),
        ("x", SEMANTICS[:1], "names: expected 1, one per descriptor"),
        (["a"], SEMANTICS[:1], "'a' occurs more than once"),
        (["x"], SEMANTICS[:1, :3], "semantics: expected 6 columns, got 3"),
        (["x"], np.full((1, 6), np.nan), "semantics: .*class 0 is NaN"),
    ],
)
def test_add_classes_rejects_and_changes_nothing(files, names, semantics, message):
    classifier = MCFAClassifier.load(files / "gzsl")
    before = classifier.decision_function(TEST_ALL[0])
    with pytest.raises(ValueError, match=message):
        classifier.add_classes(names, semantics)
    assert classifier.class_names_ == NAMES
    assert np.array_equal(classifier.decision_function(TEST_ALL[0]), before)


# Saving


def test_saved_classifier_is_bitwise_the_same(task, tmp_path):
    classifier = new(task, epochs=3).set_params(method="nearest", calibration=0.25)
    classifier.save(tmp_path / "file")
    loaded = MCFAClassifier.load(tmp_path / "file")
    assert (loaded.method, loaded.calibration) == ("nearest", 0.25)
    assert loaded.config_ == classifier.config_
    assert loaded.class_names_ == NAMES
    for step in range(2):
        for method in METHODS:
            ours, theirs = (
                one.set_params(method=method).decision_function(TEST_ALL[0])
                for one in (classifier, loaded)
            )
            assert np.array_equal(ours, theirs)
        if step == 0:  # the latents of seen classes are kept, too
            for one in (classifier, loaded):
                one.add_classes(["new"], make_semantics()[NEW:])
    loaded.save(tmp_path / "again")
    again = MCFAClassifier.load(tmp_path / "again")
    assert np.array_equal(
        again.decision_function(TEST_ALL[0]), classifier.decision_function(TEST_ALL[0])
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "file"]


def test_load_rejects_absent_damaged_and_foreign_files(files, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        MCFAClassifier.load(path)
    whole = (files / "zsl").read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            MCFAClassifier.load(path)
    write_checkpoint(path, {"model": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected a file written by"):
        MCFAClassifier.load(path)


# scikit-learn's manners


def test_parameters_and_clone(classifier):
    classifier.set_params(calibration=0.1)
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    assert set(copy.get_params()) == {
        "config",
        "method",
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
        lambda c: c.config_,
    ],
)
def test_before_fit(use):
    with pytest.raises(NotFittedError):
        use(MCFAClassifier())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": IMAGES[:, 0]}, r"features: expected shape \[N, F\]"),
        ({"features": IMAGES[:0], "labels": LABELS[:0]}, r"features: expected shape \[N, F\]"),
        ({"features": IMAGES.astype(str)}, "features: expected float"),
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
    monkeypatch.setattr(Trainer, "fit", lambda self: pytest.fail("trained"))
    arguments = {"features": IMAGES, "labels": LABELS, "semantics": SEMANTICS, **change}
    with pytest.raises(ValueError, match=message):
        MCFAClassifier(config("zsl")).fit(**arguments)


def test_fit_rejects_a_generalized_task_without_seen_latents():
    with pytest.raises(ValueError, match="seen_latents: expected 1 or more"):
        MCFAClassifier(config("gzsl", seen_latents=0)).fit(IMAGES, LABELS, SEMANTICS)


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


def test_unknown_method(files):
    classifier = MCFAClassifier.load(files / "zsl").set_params(method="forest")
    with pytest.raises(ValueError, match=r"method: expected one of .* got 'forest'"):
        classifier.predict(IMAGES)
