"""Adding a class to a trained classifier of any system, and saving it beside the one before."""

import numpy as np
import pytest
from zero_shot_data import NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.export.update import add_class, replace_saved

IMAGES, LABELS = make_images(SEEN, rows=20)
VECTOR = make_semantics()[NEW]

pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(system):
    options = {"selection": "none"} | ({"epochs": 1} if system == "dual-encoder" else {})
    classifier = mf.ZeroShotClassifier(system, task="gzsl", options=options)
    return classifier.fit(IMAGES, LABELS, make_semantics()[:NEW])


@pytest.mark.parametrize("system", ["eszsl", "dual-encoder"])
def test_a_class_is_added_to_any_system(system):
    classifier, other = fitted(system), fitted(system)
    assert add_class(classifier, "new", VECTOR) == NEW
    other.add_classes(["new"], VECTOR[None])
    assert classifier.class_names_ == other.class_names_
    images = make_images(np.array([NEW]), rows=5)[0]
    assert np.array_equal(classifier.decision_function(images), other.decision_function(images))


@pytest.mark.parametrize(
    ("name", "vector", "message"),
    [
        ("class_3", VECTOR, "name: there is a class 'class_3' already"),
        ("a\x1b[31m", VECTOR, r"name: expected no control characters, got 'a\\x1b\[31m'"),
        ("a\nb", VECTOR, r"name: expected no control characters, got 'a\\nb'"),
        ("\ud800", VECTOR, r"name: expected no control characters, got '\\ud800'"),
        ("", VECTOR, "expected non-empty strings"),
        ("new", VECTOR[1:], r"'new': expected 6 values as in training, got \[5\]"),
        ("new", VECTOR * np.nan, "is NaN, infinite or too large"),
        ("new", VECTOR * 1e4, r"descriptor of 'new': its values are up to .* times as large"),
    ],
)
def test_bad_classes_change_nothing(name, vector, message):
    classifier = fitted("eszsl")
    before = classifier.decision_function(IMAGES)
    with pytest.raises(ValueError, match=message):
        add_class(classifier, name, vector)
    assert len(classifier.class_names_) == NEW
    assert np.array_equal(classifier.decision_function(IMAGES), before)


def test_a_class_that_would_break_the_scores_is_not_added(monkeypatch):
    """Whatever else may be wrong with it."""
    classifier = fitted("eszsl")
    scores = type(classifier.system_).scores

    def broken(self, features, semantics):
        found = scores(self, features, semantics)
        found[:, NEW:] = np.nan
        return found

    monkeypatch.setattr(type(classifier.system_), "scores", broken)
    with pytest.raises(ValueError, match="the scores of row 0 are not finite"):
        add_class(classifier, "new", VECTOR)
    assert len(classifier.class_names_) == NEW


def test_the_classifier_before_is_kept_whole(tmp_path):
    classifier, path = fitted("eszsl"), tmp_path / "classifier.pt"
    classifier.save(path)
    before = path.read_bytes()
    add_class(classifier, "new", VECTOR)
    previous = replace_saved(classifier, path)
    assert previous == tmp_path / "classifier.previous.pt"
    assert previous.read_bytes() == before
    assert mf.ZeroShotClassifier.load(path).class_names_[-1] == "new"
    assert sorted(tmp_path.iterdir()) == [previous, path]


def test_a_full_disk_leaves_both_files_as_they_were(tmp_path, monkeypatch):
    classifier, path = fitted("eszsl"), tmp_path / "classifier.pt"
    previous = tmp_path / "classifier.previous.pt"
    classifier.save(path)
    before = path.read_bytes()
    previous.write_bytes(b"the undo of the time before")

    def full(source, target):
        target.write(source.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        replace_saved(classifier, path)
    assert path.read_bytes() == before
    assert previous.read_bytes() == b"the undo of the time before"
    assert sorted(tmp_path.iterdir()) == [previous, path]


def test_every_head_knows_the_new_class():
    run = config("gzsl", epochs=1, **{"softmax.epochs": 1})
    classifier = mf.ZeroShotClassifier(run).fit(IMAGES, LABELS, make_semantics()[:NEW])
    add_class(classifier, "new", VECTOR)
    for head in classifier.heads_:
        assert classifier.with_head(head).decision_function(IMAGES).shape[1] == NEW + 1
