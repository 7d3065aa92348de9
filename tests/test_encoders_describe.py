"""The descriptors of a whole dataset folder, with an encoder of one's own."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from data_helpers import TINY_NAMES, tiny_arrays, write_folder

from mcfa_fast.data import DatasetError, MissingFileError, load
from mcfa_fast.encoders import describe_folder

SENTENCES = {name: [name, name.upper()] for name in reversed(TINY_NAMES)} | {"elsewhere": []}


class Letters:
    """Describes sentences by how often letters occur in them."""

    def describe(self, sentences):
        if not all(isinstance(text, str) for text in sentences):
            raise TypeError("sentences: expected a list of strings")
        text = "".join(sentences).lower()
        return np.array([text.count(letter) for letter in "aeors"], dtype=np.float32)


EXPECTED = np.stack([Letters().describe(SENTENCES[name]) for name in TINY_NAMES])


@pytest.fixture
def folder(tmp_path):
    folder = write_folder(tmp_path / "data")
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES))
    return folder


def test_descriptors_are_in_the_order_of_the_class_names(folder):
    made = describe_folder(folder, folder.parent / "sentences.json", Letters(), name="letters")
    np.testing.assert_array_equal(made, EXPECTED)
    np.testing.assert_array_equal(load(folder, semantics="letters").semantics, EXPECTED)
    np.testing.assert_array_equal(
        load(folder, semantics="text").semantics, tiny_arrays()["semantics"]
    )


def test_the_folder_may_have_class_names_alone(folder):
    for file in ("features.npy", "labels.npy", "semantics.npz"):
        (folder / file).unlink()
    describe_folder(folder, folder.parent / "sentences.json", Letters())
    with zipfile.ZipFile(folder / "semantics.npz") as archive:
        assert archive.namelist() == ["text.npy"]
    (folder / "class_names.json").unlink()
    with pytest.raises(MissingFileError, match=r"class_names\.json: missing"):
        describe_folder(folder, folder.parent / "sentences.json", Letters())


def test_descriptors_are_replaced_when_told_to(folder):
    before = (folder / "semantics.npz").read_bytes()
    with pytest.raises(FileExistsError, match=r"semantics\.npz: has descriptors 'text' already"):
        describe_folder(folder, folder.parent / "sentences.json", Letters())
    assert (folder / "semantics.npz").read_bytes() == before
    describe_folder(folder, folder.parent / "sentences.json", Letters(), overwrite=True)
    np.testing.assert_array_equal(load(folder).semantics, EXPECTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"beach": ["a"]}, r"no sentences of class 'forest' \(1\), 'port' \(2\)"),
        ({**SENTENCES, "port": [3]}, "class 'port': sentences: expected a list of strings"),
        (["a"], "expected an object of class names and lists of sentences"),
    ],
)
def test_bad_sentences_write_nothing(folder, content, message):
    sentences = folder.parent / "sentences.json"
    sentences.write_text(json.dumps(content))
    before = (folder / "semantics.npz").read_bytes()
    with pytest.raises(DatasetError, match=r"sentences\.json: " + message):
        describe_folder(folder, sentences, Letters(), overwrite=True)
    assert (folder / "semantics.npz").read_bytes() == before


@pytest.mark.parametrize("name", ["", "file", "text_index", "my_names"])
def test_names_that_descriptors_cannot_have(folder, name):
    with pytest.raises(ValueError, match="name: expected one that is not 'file' and does not end"):
        describe_folder(folder, folder.parent / "sentences.json", Letters(), name=name)
