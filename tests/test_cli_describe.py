"""``mcfa-fast describe`` with a tiny sentence model."""

import json

import numpy as np
import pytest
from cli_run import SOLVED, invoke
from data_helpers import TINY_LABELS, TINY_NAMES, tiny_arrays, write_folder
from sentence_model import describe, save_sentence_model

import mcfa_fast as mf

# In another order than the class names, and with a class more.
SENTENCES = {
    "elsewhere": ["against"],
    "school": ["a loop", "line top"],
    "river": ["a line"],
    "port": ["top", "a top", "bottom"],
    "forest": ["loop loop bottom"],
    "beach": ["bottom"],
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_sentence_model(folder, 5)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A dataset folder with other descriptors, called "text"."""
    folder = write_folder(tmp_path / "data")
    (folder / "class_sentences.json").write_text(json.dumps(SENTENCES))
    return folder


EXPECTED = np.stack([describe(SENTENCES[name], 5) for name in TINY_NAMES])


def test_the_first_descriptors_of_a_folder_train_a_run(folder, encoder, tmp_path):
    (folder / "semantics.npz").unlink()
    sentences = (folder / "class_sentences.json").rename(tmp_path / "mine.json")
    result = invoke("describe", folder, "--sentences", sentences, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    assert "5 classes described by 5 values each" in result.output
    semantics = mf.data.load(folder).semantics
    np.testing.assert_allclose(semantics, EXPECTED, atol=1e-6)
    options = ["--split", "3/2:seed=0", "--set", "selection=none", *SOLVED]
    result = invoke("train", "--data", folder, *options, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    # A class that is added by sentences gets a descriptor of the same kind.
    options = ["--sentence", "a loop", "--sentence", "line top", "--encoder", encoder]
    assert invoke("add-class", tmp_path / "run", "another", *options).exit_code == 0
    classifier = mf.ZeroShotClassifier.load(tmp_path / "run" / "classifier.pt")
    np.testing.assert_allclose(classifier.table_.semantics[-1], semantics[4], atol=1e-6)


def test_other_descriptors_stay_and_the_same_are_replaced_with_a_flag(folder, encoder):
    path = folder / "semantics.npz"
    table = tiny_arrays()["semantics"]
    companions = {"text_index": np.arange(5)[::-1], "text_names": np.array(["x", "y", "z"])}
    other = {"kg": table, "kg_index": np.arange(5)}
    np.savez(path, text=table, **companions, **other)
    before = path.read_bytes()
    result = invoke("describe", folder, "--encoder", encoder)
    assert result.exit_code == 1
    assert "has descriptors 'text' already; replace them with --overwrite" in result.stderr
    assert path.read_bytes() == before
    result = invoke("describe", folder, "--encoder", encoder, "--name", "mine")
    assert result.exit_code == 0, result.output
    with np.load(path) as stored:
        assert set(stored) == {"text", *companions, *other, "mine"}
    result = invoke("describe", folder, "--encoder", encoder, "--overwrite")
    assert result.exit_code == 0, result.output
    with np.load(path) as stored:
        assert set(stored) == {"text", *other, "mine"}
        assert all(np.array_equal(stored[key], other[key]) for key in other)
        assert stored["text"].dtype == np.float32
    # In the order of class_names.json, whatever the index said of the table before.
    np.testing.assert_allclose(mf.data.load(folder).semantics, EXPECTED, atol=1e-6)
    assert np.array_equal(mf.data.load(folder).labels, TINY_LABELS)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"beach": ["a"]}, [], "no sentences of class 'forest' (1), 'port' (2)"),
        ({**SENTENCES, "port": []}, [], "class 'port': sentences: expected one or more non-empty"),
        ({**SENTENCES, "port": "top"}, [], "class 'port': sentences: expected a list of strings"),
        ({**SENTENCES, "port": ["loop", "against"]}, [], "class 'port': sentences: "),
        ([], [], "expected an object of class names and lists of sentences"),
        (None, [], "class_sentences.json: missing"),
        (SENTENCES, ["--name", "text_names"], "name: expected one that is not 'file' and does not"),
        (SENTENCES, ["--name", "file"], "name: expected one that is not 'file' and does not"),
        (SENTENCES, ["--encoder", "./nothing"], "./nothing: there is no such folder"),
    ],
)
def test_bad_usage_writes_nothing(folder, encoder, content, options, message):
    sentences = folder / "class_sentences.json"
    sentences.unlink() if content is None else sentences.write_text(json.dumps(content))
    before = (folder / "semantics.npz").read_bytes()
    options = ["--overwrite", "--encoder", encoder, *options]
    result = invoke("describe", folder, *options)
    assert result.exit_code == 1 and message in result.stderr
    assert (folder / "semantics.npz").read_bytes() == before


def test_a_folder_without_class_names_is_refused(tmp_path, encoder):
    result = invoke("describe", tmp_path, "--encoder", encoder)
    assert result.exit_code == 1 and "class_names.json: missing" in result.stderr
