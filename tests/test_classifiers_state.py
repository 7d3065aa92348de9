"""Classes that are added to a fitted classifier, and its file."""

import numpy as np
import pytest
import torch
from zero_shot_data import NEW, SEEN, UNSEEN, config, make_images, make_semantics

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.storage import read_checkpoint, write_checkpoint

HEADS = ("softmax", "nearest", "ensemble")
SEMANTICS = make_semantics()[:NEW]
NAMES = tuple("abcdefghijkl")
IMAGES, LABELS = make_images(SEEN, rows=20)
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
    if classifier.head_.name == "nearest":  # the others' similarities stay
        after = classifier.decision_function(TEST_ALL[0])[:, :-1]
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_adding_at_once_or_after_a_search_is_the_same(files, head):
    added = []
    for search_first in (False, True):
        classifier = ZeroShotClassifier.load(files / "gzsl").with_head(head)
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
    classifier = ZeroShotClassifier.load(files / "gzsl")
    before = classifier.decision_function(TEST_ALL[0])
    with pytest.raises(ValueError, match=message):
        classifier.add_classes(names, semantics)
    assert classifier.class_names_ == NAMES
    assert np.array_equal(classifier.decision_function(TEST_ALL[0]), before)


# Saving


def test_saved_classifier_is_bitwise_the_same(task, tmp_path):
    classifier = new(task, epochs=3).set_params(head="nearest", calibration=0.25)
    classifier.save(tmp_path / "file")
    loaded = ZeroShotClassifier.load(tmp_path / "file")
    assert (loaded.head, loaded.calibration) == ("nearest", 0.25)
    assert loaded.run_ == classifier.run_
    assert loaded.class_names_ == NAMES
    for step in range(2):
        for head in HEADS:
            ours, theirs = (
                one.with_head(head).decision_function(TEST_ALL[0])
                for one in (classifier, loaded)
            )
            assert np.array_equal(ours, theirs)
        if step == 0:  # the Gaussians of seen classes' images are kept, too
            for one in (classifier, loaded):
                one.add_classes(["new"], make_semantics()[NEW:])
    loaded.save(tmp_path / "again")
    again = ZeroShotClassifier.load(tmp_path / "again")
    assert np.array_equal(
        again.decision_function(TEST_ALL[0]), classifier.decision_function(TEST_ALL[0])
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "file"]


def test_load_rejects_absent_damaged_and_foreign_files(files, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        ZeroShotClassifier.load(path)
    whole = (files / "zsl").read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            ZeroShotClassifier.load(path)
    write_checkpoint(path, {"model": torch.zeros(1)})
    with pytest.raises(ValueError, match="expected a file written by"):
        ZeroShotClassifier.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("run"),
        lambda state: state.update(run="{}"),
        lambda state: state["table"].pop("seen"),
        lambda state: state["system"].popitem(),
        lambda state: state["heads"].pop("softmax"),
        lambda state: state["heads"]["softmax"].pop("layer"),
        lambda state: state["parameters"].update(other=1),
        lambda state: state.update(selection={"score": 1}),
    ],
)
def test_load_rejects_other_contents(files, tmp_path, change):
    state = read_checkpoint(files / "gzsl")
    change(state)
    write_checkpoint(tmp_path / "file", state)
    with pytest.raises(ValueError, match=r"file: its content is not that of a saved classifier"):
        ZeroShotClassifier.load(tmp_path / "file")


def test_load_names_a_system_that_is_not_there(files, tmp_path):
    state = read_checkpoint(files / "zsl")
    state["run"] = state["run"].replace('"mcfa"', '"elsewhere"')
    write_checkpoint(tmp_path / "file", state)
    with pytest.raises(ValueError, match=r"file: [\s\S]*system: expected one of .*'elsewhere'"):
        ZeroShotClassifier.load(tmp_path / "file")
