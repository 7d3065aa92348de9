"""The class names of a dataset folder: a list, or an object that says which index each name has."""

from __future__ import annotations

import json

import pytest
from data_helpers import TINY_NAMES, tiny_splits, write_folder

from mcfa_fast.data import DatasetError, load


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tiny", splits=tiny_splits())


INDICES = {name: index for index, name in enumerate(TINY_NAMES)}


@pytest.mark.parametrize(
    "content",
    [
        list(TINY_NAMES),
        {name: INDICES[name] for name in sorted(INDICES, reverse=True)},
        {str(index): TINY_NAMES[index] for index in (3, 1, 0, 4, 2)},
    ],
)
def test_class_names_by_their_indices(folder, content):
    (folder / "class_names.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert load(folder).class_names == TINY_NAMES


def test_class_names_that_are_numbers(folder):
    (folder / "splits.json").unlink()
    content = {"4": 0, "0": 1, "1": 2, "2": 3, "3": 4}
    (folder / "class_names.json").write_text(json.dumps(content))
    assert load(folder).class_names == ("4", "0", "1", "2", "3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**INDICES, "port": 0}, r"expected each of the indices 0\.\.4 once, got \[0, 1, 3, 4\]"),
        ({**INDICES, "port": 5}, r"expected each of the indices 0\.\.4 once"),
        ({**INDICES, "port": -1}, r"expected each of the indices"),
        ({**INDICES, "port": True}, "expected a list of names, an object of names"),
        ({**INDICES, "port": 2.0}, "expected a list of names, an object of names"),
        ({"0": "a", "01": "b"}, "expected a list of names"),
        ({"0": "a", "1": "a"}, "'a' occurs more than once"),
        ({"0": "a", "2": "b"}, r"indices 0\.\.1 once, got \[0, 2\]"),
        ({"0": ["a"], "1": "b"}, "expected non-empty strings"),
        ({}, "expected at least one class"),
        (["a", "\ud800"], "half of a surrogate pair"),
    ],
)
def test_class_names_without_an_order(folder, content, message):
    (folder / "class_names.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"class_names\.json: class_names: .*" + message):
        load(folder)
