"""The datasets that need no files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from data_helpers import assert_proper, eszsl_accuracy, write_csv_folder

from mcfa_fast.data import DatasetError, load
from mcfa_fast.data.digits import ATTRIBUTES
from mcfa_fast.data.synthetic import synthetic

# A seven-segment display in the usual a-g order: top, right sides, bottom, left sides, middle.
SEGMENTS = {0: "abcdef", 1: "bc", 2: "abdeg", 3: "abcdg", 4: "bcfg"}
SEGMENTS |= {5: "acdfg", 6: "acdefg", 7: "abc", 8: "abcdefg", 9: "abcdfg"}
SEGMENT_LETTERS = {
    "segment_top": "a",
    "segment_upper_right": "b",
    "segment_lower_right": "c",
    "segment_bottom": "d",
    "segment_lower_left": "e",
    "segment_upper_left": "f",
    "segment_middle": "g",
}


def test_digits():
    dataset = load("digits")
    assert dataset.features.shape == (1797, 64) and dataset.features.dtype == np.float32
    assert dataset.features.min() == 0 and dataset.features.max() == 16
    assert dataset.class_names == tuple("0123456789")
    assert dataset.semantics.shape == (10, len(ATTRIBUTES))
    assert dataset.split_names == ("7/3:0", "7/3:1", "7/3:2", "7/3:3", "7/3:4")
    unseen = set()
    for name in dataset.split_names:
        for generalized in (False, True):
            split = dataset.split(name, generalized=generalized)
            assert_proper(split, dataset)
            assert len(split.seen_classes) == 7 and len(split.unseen_classes) == 3
        unseen.add(tuple(split.unseen_classes))
    assert len(unseen) == 5


def test_digit_attributes():
    table = np.array(list(ATTRIBUTES.values()))
    assert table.min() == 0 and table.max() == 1
    assert (table.max(axis=1) > table.min(axis=1)).all()
    assert len(np.unique(table.T, axis=0)) == 10
    for name, letter in SEGMENT_LETTERS.items():
        assert ATTRIBUTES[name] == tuple(float(letter in SEGMENTS[digit]) for digit in range(10))


def test_digit_attributes_help_to_recognise_unseen_digits():
    dataset = load("digits")
    splits = [dataset.split(f"7/3:seed={k}", generalized=False) for k in range(20)]
    rng = np.random.default_rng(0)
    real = np.mean([eszsl_accuracy(dataset, s, dataset.semantics) for s in splits])
    shuffled = [dataset.semantics[rng.permutation(10)] for _ in splits]
    control = np.mean(
        [eszsl_accuracy(dataset, s, t) for s, t in zip(splits, shuffled, strict=True)]
    )
    assert real > 0.43 and real > control + 0.05  # chance is 1/3


def test_synthetic_has_the_shape_of_the_papers_dataset():
    dataset = load("synthetic")
    assert dataset.features.shape == (56_000, 512) and dataset.features.dtype == np.float32
    assert dataset.semantics.shape == (70, 1024)
    assert np.bincount(dataset.labels).tolist() == [800] * 70
    assert dataset.split_names == tuple(f"60/10:{k}" for k in range(5))
    assert_proper(dataset.split(generalized=True), dataset)


def test_synthetic_is_seeded_and_has_classes():
    sizes = {"classes": 6, "instances": 20, "visual_features": 32, "semantic_features": 8}
    a, b, c = synthetic(**sizes), synthetic(**sizes), synthetic(**sizes, seed=1)
    np.testing.assert_array_equal(a.features, b.features)
    assert (a.features != c.features).any() and (a.semantics != c.semantics).any()
    centres = np.stack([a.features[a.labels == label][::2].mean(axis=0) for label in range(6)])
    others = a.features[1::2]
    nearest = np.linalg.norm(others[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == a.labels[1::2]).mean() > 0.6  # chance is 1/6


@pytest.mark.parametrize("argument", ["classes", "instances", "visual_features", "seed"])
def test_synthetic_names_a_bad_argument(argument):
    with pytest.raises(ValueError, match=f"{argument}: expected at least"):
        synthetic(**{argument: -1})


@pytest.mark.parametrize("option", ["features", "semantics"])
def test_built_in_datasets_have_no_options(option):
    with pytest.raises(DatasetError, match="digits: has no other features or semantics"):
        load("digits", **{option: "512"})


LIGHT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sklearn", "scipy", "pydantic", "faiss", "filelock"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import importlib.util
original = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {"sklearn", "scipy"} else original(
    name, *rest
)
import mcfa_fast.encoders, mcfa_fast.search, mcfa_fast.storage
from mcfa_fast.data import load, save_folder
from mcfa_fast.data.synthetic import synthetic

folder, mat = sys.argv[1:]
print(load(save_folder(synthetic(classes=5, instances=4), folder)))
for name in ("digits", mat):
    try:
        load(name)
    except ImportError as error:
        print(error)
"""


def test_pytorch_and_numpy_are_enough_until_a_file_needs_more(tmp_path):
    mat = write_csv_folder(tmp_path / "mat")
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT, tmp_path / "folder", mat],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    dataset, *errors = ran.stdout.splitlines()
    assert dataset.startswith("Dataset('folder': 20 rows")
    asked = ("the dataset 'digits': ", f"{mat / 'bert.mat'}: ")
    for error, what in zip(errors, asked, strict=True):
        assert error.startswith(what) and error.endswith("pip install 'mcfa_fast[zsl]'")
