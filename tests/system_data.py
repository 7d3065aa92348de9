"""Rows around one centre per seen class, for tests that need training but no accuracy."""

from __future__ import annotations

import torch

from mcfa_fast.data.inputs import TrainingData, training_data
from mcfa_fast.systems.mcfa import MCFAConfig

SEEN, CLASSES, F, A = 4, 6, 10, 8
SMALL = {
    "epochs": 3,
    "classes_per_batch": 3,
    "instances_per_class": 4,
    "latent_features": 5,
    "visual_hidden": 12,
    "semantic_hidden": 7,
}
CONFIG = MCFAConfig.paper("gzsl", **SMALL)


def make_data(rows_per_class=15, seed=0):
    """Features [n, F], labels [n] and all classes' descriptors [CLASSES, A]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(SEEN, F, generator=generator)
    labels = torch.arange(SEEN).repeat(rows_per_class)
    features = centres[labels] + 0.3 * torch.randn(len(labels), F, generator=generator)
    return features, labels, torch.randn(CLASSES, A, generator=generator)


def make_training_data() -> TrainingData:
    """The same, checked, as a system takes it."""
    return training_data(*make_data(), None, None)


def assert_same_state(system, other):
    """Bitwise the same weights."""
    ours, theirs = system.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def differ(system, other):
    """Whether any of the weights differs."""
    theirs = other.state_dict()
    return any(not torch.equal(value, theirs[name]) for name, value in system.state_dict().items())


def without_seconds(history):
    """What two trainings of the same have in common."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]
