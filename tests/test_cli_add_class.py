"""``mcfa-fast add-class`` on copies of a digits run of one epoch."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cli_run import invoke
from sentence_model import describe, save_sentence_model

import mcfa_fast as mf

DESCRIPTOR = np.linspace(0, 1, 26, dtype=np.float32)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_sentence_model(folder, 26)
    return folder


@pytest.fixture
def run(run_dir, tmp_path):
    return shutil.copytree(run_dir, tmp_path / "run")


def expected(run_dir, descriptor):
    """What the library's own call gives."""
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt")
    return classifier.add_classes(["new"], np.asarray(descriptor)[None])


def same_scores(run, classifier):
    added = mf.ZeroShotClassifier.load(run / "classifier.pt")
    assert added.class_names_ == classifier.class_names_
    features = mf.data.load("digits").features[:50]
    for head in ("softmax", "nearest"):
        scores, expected = (
            one.with_head(head).decision_function(features) for one in (added, classifier)
        )
        assert np.array_equal(scores, expected)


def test_class_from_sentences(run_dir, run, encoder):
    sentences = ["a loop top", "line"]
    options = [part for text in sentences for part in ("--sentence", text)]
    result = invoke("add-class", run, "new", *options, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    assert "class 'new' added with index 10; 11 classes" in result.output
    added = mf.ZeroShotClassifier.load(run / "classifier.pt").table_.semantics[-1]
    np.testing.assert_allclose(added, describe(sentences, 26), atol=1e-6)
    same_scores(run, expected(run_dir, added))


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (DESCRIPTOR, []),
        (DESCRIPTOR[None], []),
        (np.stack([DESCRIPTOR[::-1], DESCRIPTOR]).astype(np.float64), ["--semantics-row", "1"]),
    ],
)
def test_class_from_a_vector(run_dir, run, tmp_path, array, options):
    np.save(tmp_path / "vector.npy", array)
    result = invoke("add-class", run, "new", "--vector", tmp_path / "vector.npy", *options)
    assert result.exit_code == 0, result.output
    same_scores(run, expected(run_dir, DESCRIPTOR))


def test_the_classifier_before_is_kept_and_the_run_works_on(run_dir, run, tmp_path):
    np.save(tmp_path / "vector.npy", DESCRIPTOR)
    for name in ("new", "newer"):
        before = (run / "classifier.pt").read_bytes()
        result = invoke("add-class", run, name, "--vector", tmp_path / "vector.npy")
        assert result.exit_code == 0, result.output
        assert (run / "classifier.previous.pt").read_bytes() == before
    np.save(tmp_path / "features.npy", mf.data.load("digits").features[:5])
    output = tmp_path / "labels.csv"
    result = invoke("predict", run, tmp_path / "features.npy", "-o", output, "--top", 12)
    assert result.exit_code == 0, result.output
    with output.open() as file:
        assert {row["class"] for row in csv.DictReader(file)} >= {"new", "newer", "3"}
    assert invoke("evaluate", run).exit_code == 0
    assert {path.name for path in run.iterdir()} == {
        "classifier.previous.pt",
        "classifier.pt.lock",
        *(path.name for path in run_dir.iterdir()),
    }


def test_the_head_of_the_run_stays(nearest_run, tmp_path):
    np.save(tmp_path / "vector.npy", DESCRIPTOR)
    assert (
        invoke("add-class", nearest_run, "new", "--vector", tmp_path / "vector.npy").exit_code == 0
    )
    assert mf.ZeroShotClassifier.load(nearest_run / "classifier.pt").head == "nearest"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["3", "--vector", "good.npy"], 1, "name: there is a class '3' already"),
        (["", "--vector", "good.npy"], 1, "expected non-empty strings"),
        (["new", "--vector", "wide.npy"], 1, "'new': expected 26 values as in training, got [30]"),
        (["new", "--vector", "rows.npy"], 1, "choose a row with --semantics-row"),
        (["new", "--vector", "rows.npy", "--semantics-row", "2"], 1, "has rows 0..1, got 2"),
        (["new", "--vector", "nan.npy"], 1, "is NaN, infinite"),
        (["new", "--vector", "far.npy"], 1, "expected one on the same scale"),
        (["a\nb", "--vector", "good.npy"], 1, "expected no control characters, got 'a\\nb'"),
        (["new", "--vector", "cube.npy"], 1, "cube.npy: expected a descriptor [A]"),
        (["new", "--vector", "nothing.npy"], 1, "nothing.npy: cannot be read"),
        (["new", "--sentence", "a", "--encoder", "./nothing"], 1, "./nothing: there is no such"),
        (["new", "--sentence", "a", "--encoder", "narrow"], 1, "got [7] by the encoder narrow"),
        (["new"], 2, "--vector"),
        (["new", "--sentence", "a", "--vector", "good.npy"], 2, "--vector"),
        (["new", "--sentence", "a", "--semantics-row", "0"], 2, "--semantics-row"),
    ],
)
def test_bad_usage_changes_nothing(run, tmp_path, monkeypatch, arguments, code, message):
    arrays = {
        "good": DESCRIPTOR,
        "wide": np.ones(30),
        "rows": np.stack([DESCRIPTOR, DESCRIPTOR]),
        "nan": np.full(26, np.nan),
        "far": 1e4 * DESCRIPTOR,
        "cube": np.ones((1, 1, 26)),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    if "narrow" in arguments:
        save_sentence_model(tmp_path / "narrow", 7)
    before = (run / "classifier.pt").read_bytes()
    monkeypatch.chdir(tmp_path)
    result = invoke("add-class", run, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert (run / "classifier.pt").read_bytes() == before
    assert not (run / "classifier.previous.pt").exists()


def test_a_message_with_brackets_is_printed_whole(run, monkeypatch):
    """Not taken for the markup of the terminal's colours."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    result = invoke("add-class", run, "new", "--sentence", "a")
    assert result.exit_code == 1
    assert "pip install 'mcfa_fast[text]'" in result.stderr


def test_additions_at_the_same_time_are_all_kept(run, tmp_path):
    np.save(tmp_path / "vector.npy", DESCRIPTOR)
    names = ["first", "second", "third"]
    command = [sys.executable, "-m", "mcfa_fast", "add-class", run]
    processes = [
        subprocess.Popen([*command, name, "--vector", tmp_path / "vector.npy"]) for name in names
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    added = mf.ZeroShotClassifier.load(run / "classifier.pt").class_names_[10:]
    assert sorted(added) == names
