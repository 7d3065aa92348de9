"""What every registered system promises, whatever it computes."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from contract_data import (
    FEATURES,
    NAMES,
    NEW,
    SEEN,
    UNSEEN,
    make_dataset,
    make_images,
    make_semantics,
    short,
)
from sklearn.base import clone
from system_data import assert_same_state

import mcfa_fast as mf
from mcfa_fast.classifiers.heads import HEADS
from mcfa_fast.experiments.run import run
from mcfa_fast.systems.base import (
    Embeds,
    Exports,
    ExportsScores,
    Scores,
    Synthesizes,
    TrainableConfig,
)
from mcfa_fast.systems.registry import SYSTEMS
from mcfa_fast.training import RunFolder

DATASET, SPLITS = make_dataset()
IMAGES = make_images(np.arange(NEW), rows=6, seed=9)[0]
TRAINED = [n for n, entry in SYSTEMS.items() if issubclass(entry.system.Config, TrainableConfig)]
EACH = pytest.mark.parametrize(("name", "task"), list(product(SYSTEMS, ("zsl", "gzsl"))))

pytestmark = pytest.mark.usefixtures("one_thread")


def new(name, task, *, run_dir=None, **options):
    return mf.ZeroShotClassifier(
        name, task=task, options=short(name, **options), run_dir=run_dir, seed=1
    )


def fit(classifier, task, **changes):
    rows = SPLITS[task].train
    arguments = {
        "features": DATASET.features[rows],
        "labels": DATASET.labels[rows],
        "semantics": DATASET.semantics,
        "class_names": NAMES,
    }
    return classifier.fit(**{**arguments, **changes})


@cache
def saved(name, task, folder):
    """A file with the fitted classifier; every test loads its own."""
    path = folder / f"{name}-{task}"
    fit(new(name, task), task).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_thread):
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture
def classifier(name, task, folder):
    return mf.ZeroShotClassifier.load(saved(name, task, folder))


def assert_same_answers(ours, theirs):
    assert ours.run_ == theirs.run_ and ours.selection_ == theirs.selection_
    assert list(ours.heads_) == list(theirs.heads_)
    for head in ours.heads_:
        a, b = (one.with_head(head) for one in (ours, theirs))
        assert np.array_equal(a.decision_function(IMAGES), b.decision_function(IMAGES)), head
        assert a.effective_calibration == b.effective_calibration


@EACH
def test_fits_and_predicts(name, task, classifier):
    entry = SYSTEMS[name]
    assert tuple(classifier.heads_) == tuple(head for head in HEADS if head in entry.heads)
    classes = UNSEEN if task == "zsl" else np.arange(NEW)
    for head in entry.heads:
        view = classifier.with_head(head)
        scores = view.decision_function(IMAGES)
        assert scores.shape == (len(IMAGES), len(classes)) and np.isfinite(scores).all()
        assert np.array_equal(view.predict(IMAGES), classes[scores.argmax(axis=1)])
        np.testing.assert_allclose(view.predict_proba(IMAGES).sum(axis=1), 1)
        assert len(np.unique(scores.round(6), axis=0)) > 1, "images are told apart"


@pytest.mark.parametrize("name", SYSTEMS)
def test_has_what_its_heads_ask_for(name):
    entry = SYSTEMS[name]
    system = entry.system(entry.system.Config(), FEATURES, FEATURES)
    needs = {"scores": Scores, "nearest": Embeds, "softmax": Synthesizes, "ensemble": Embeds}
    for head in entry.heads:
        assert isinstance(system, needs[head]), head
        assert set(HEADS[head].needs) <= set(entry.heads)
    fields = entry.system.Config.model_fields
    assert [option for option, field in fields.items() if not field.description] == []
    assert "Source:" in entry.system.__doc__ and "Example:" in entry.system.__doc__


@EACH
def test_fit_depends_on_arguments_only(name, task, classifier):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = fit(new(name, task), task)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert_same_state(again.system_, classifier.system_)
    assert_same_answers(again, classifier)


@EACH
def test_saved_classifier_is_bitwise_the_same(name, task, classifier, tmp_path):
    classifier.save(tmp_path / "file")
    loaded = mf.ZeroShotClassifier.load(tmp_path / "file")
    assert_same_answers(loaded, classifier)
    for one in (loaded, classifier):
        one.add_classes(["new"], make_semantics()[NEW:])
    assert_same_answers(loaded, classifier)


@EACH
def test_added_class_is_predicted(name, task, classifier):
    assert NEW not in classifier.predict(IMAGES)
    classifier.add_classes(["new"], make_semantics()[NEW:])
    assert classifier.classes_[-1] == NEW
    images, labels = make_images(np.array([*UNSEEN, NEW]), rows=30, seed=5)
    for head in classifier.heads_:
        predictions = classifier.with_head(head).predict(images, candidates=[*UNSEEN, "new"])
        assert np.mean(predictions[labels == NEW] == NEW) > 0.5, head


@pytest.mark.parametrize("name", TRAINED)
def test_interrupted_training_resumes_to_the_same(name, folder, tmp_path, monkeypatch):
    task = "gzsl"
    finish_epoch, epochs = RunFolder.finish_epoch, []

    def killed(self, state):
        if len(state["history"]) == 2:
            raise KeyboardInterrupt
        finish_epoch(self, state)

    monkeypatch.setattr(RunFolder, "finish_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(new(name, task, run_dir=tmp_path), task)

    def counted(self, state):
        epochs.append(len(state["history"]))
        finish_epoch(self, state)

    monkeypatch.setattr(RunFolder, "finish_epoch", counted)
    resumed = fit(new(name, task, run_dir=tmp_path), task)
    wanted = list(range(2, short(name)["epochs"] + 1))
    assert epochs == wanted
    whole = mf.ZeroShotClassifier.load(saved(name, task, folder))
    assert_same_state(resumed.system_, whole.system_)
    assert_same_answers(resumed, whole)
    again = fit(new(name, task, run_dir=tmp_path), task)
    assert epochs == wanted, "nothing is left to train"
    assert_same_answers(again, whole)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in TRAINED])
def test_what_is_solved_is_solved_again(name, folder, tmp_path):
    first = fit(new(name, "gzsl", run_dir=tmp_path), "gzsl")
    assert not (tmp_path / "checkpoint.pt").exists() and list(first.history_) == []
    assert_same_answers(fit(new(name, "gzsl", run_dir=tmp_path), "gzsl"), first)


@EACH
@pytest.mark.filterwarnings("ignore::mcfa_fast.evaluation.warnings.ResultWarning")
def test_garbage_test_rows_change_nothing(name, task, tmp_path):
    """Nothing of the test images is looked at before they are evaluated."""
    split = SPLITS[task]
    garbage = DATASET.features.copy()
    garbage[np.concatenate([split.test_seen, split.test_unseen])] = 1e4
    other = mf.data.Dataset("other", garbage, DATASET.labels, NAMES, DATASET.semantics)
    config = new(name, task, selection="grid").run_config()
    results = {}
    for dataset in (DATASET, other):
        results[dataset.name] = run(config, dataset, split, run_dir=tmp_path / dataset.name)
    ours, theirs = (
        mf.ZeroShotClassifier.load(tmp_path / dataset.name / "classifier.pt")
        for dataset in (DATASET, other)
    )
    assert_same_state(ours.system_, theirs.system_)
    assert_same_answers(ours, theirs)
    evaluated = [{head: found.to_dict() for head, found in r.items()} for r in results.values()]
    assert evaluated[0] != evaluated[1], "the garbage was evaluated"


@EACH
def test_parameters_and_clone(name, task, classifier):
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    assert not hasattr(copy, "fitted_")
    assert_same_answers(fit(copy, task), classifier)


@EACH
def test_export_equals_predict_or_says_that_there_is_none(name, task, classifier, tmp_path):
    for head in classifier.heads_:
        path = tmp_path / f"{head}.pt"
        if not isinstance(classifier.system_, ExportsScores if head == "scores" else Exports):
            with pytest.raises(ValueError, match=f"system: {name} cannot be exported"):
                mf.export_classifier(classifier, path, head=head)
            assert not path.exists()
            continue
        mf.export_classifier(classifier, path, head=head)
        exported = mf.load_exported(path)
        view = classifier.with_head(head)
        scores = view.decision_function(IMAGES)
        found = np.asarray(exported.scores(IMAGES))
        np.testing.assert_allclose(found, scores, rtol=1e-3, atol=1e-3 * np.abs(scores).max())
        gap = np.diff(np.sort(scores, axis=1)[:, -2:]).ravel()
        clear = gap > 1e-3 * np.abs(scores).max()
        assert clear.mean() > 0.5
        names = np.array(NAMES)[view.predict(IMAGES)]
        assert np.array_equal(np.asarray(exported.predict(IMAGES))[clear], names[clear])


# Bad inputs: one clear error each


def with_nan():
    features = DATASET.features[SPLITS["gzsl"].train].copy()
    features[7, 2] = np.nan
    return features


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": with_nan()}, "features: NaN or infinity in row 7"),
        ({"features": DATASET.features[:5]}, "labels: expected shape"),
        ({"labels": DATASET.labels[SPLITS["gzsl"].train] + 5}, "labels: row .* has label"),
        ({"semantics": np.full((NEW, FEATURES), np.nan)}, "semantics: a value of class 0 is NaN"),
        ({"unseen_classes": [0]}, "unseen_classes: class 0 has training rows"),
        ({"class_names": NAMES[1:]}, "class_names: expected 22, one per class, got 21"),
    ],
)
def test_fit_names_a_bad_argument(name, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(new(name, "gzsl"), "gzsl", **changes)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "forest"}, "head: {name} has .*, got 'forest'"),
        ({"preset": "forest"}, "preset: {name} has .*, got 'forest'"),
        ({"options": {"forest": 1}}, "forest: {name} has no such option"),
        ({"task": "forest"}, "task: expected 'zsl' or 'gzsl', got 'forest'"),
        ({"seed": -1}, "seed"),
        ({"options": {"selection": "forest"}}, "rule"),
    ],
)
def test_unknown_names_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message.format(name=name)):
        fit(mf.ZeroShotClassifier(name, **{"task": "gzsl", **arguments}), "gzsl")


@pytest.mark.parametrize("task", ["gzsl"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_predict_names_a_bad_argument(name, task, classifier):
    for arguments, message in (
        ({"features": IMAGES[:, 1:]}, "features: expected 8 columns, got 7"),
        ({"features": np.full((2, FEATURES), np.inf)}, "features: NaN or infinity in row 0"),
        ({"features": IMAGES, "candidates": ["zebra"]}, "candidates: there is no class 'zebra'"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.predict(**arguments)
    with pytest.raises(ValueError, match="semantics: expected 8 columns, got 7"):
        classifier.add_classes(["new"], make_semantics()[NEW:, 1:])
    assert len(classifier.classes_) == len(SEEN) + len(UNSEEN)


@EACH
def test_classifies_a_set_together(name, task, classifier):
    rows = SPLITS[task].train
    train = DATASET.features[rows], DATASET.labels[rows]
    for head in classifier.heads_:
        together = classifier.with_head(head).transductive(*train)
        posteriors = together.predict_proba(IMAGES)
        np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-5)
        predicted = classifier.classes_[posteriors.argmax(axis=1)]
        assert np.array_equal(together.predict(IMAGES), predicted)
