"""Datasets of features, labels, class descriptors and seen/unseen splits.

>>> from mcfa_fast import data
>>> digits = data.load("digits")
>>> split = digits.split("7/3:0", generalized=True)
>>> sorted(digits.class_names[c] for c in split.unseen_classes)
['3', '4', '8']
"""

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.errors import DatasetError, MissingFileError
from mcfa_fast.data.loading import load
from mcfa_fast.data.save import save_folder
from mcfa_fast.data.splits import ClassSplits, Rows, RowSplits, Split

__all__ = [
    "ClassSplits",
    "Dataset",
    "DatasetError",
    "MissingFileError",
    "RowSplits",
    "Rows",
    "Split",
    "load",
    "save_folder",
]
