"""Heads: how the classes of images are found with a trained system."""

from mcfa_fast.classifiers.heads.base import ClassTable, Head
from mcfa_fast.classifiers.heads.ensemble import EnsembleHead
from mcfa_fast.classifiers.heads.nearest import NearestHead
from mcfa_fast.classifiers.heads.scores import ScoresHead
from mcfa_fast.classifiers.heads.softmax import SoftmaxHead

__all__ = [
    "HEADS",
    "ClassTable",
    "EnsembleHead",
    "Head",
    "NearestHead",
    "ScoresHead",
    "SoftmaxHead",
]

HEADS: dict[str, type[Head]] = {
    head.name: head for head in (ScoresHead, SoftmaxHead, NearestHead, EnsembleHead)
}
"""Every head by name; one that builds on others comes after them."""
