"""A small problem that can be solved: features follow the descriptors."""

from __future__ import annotations

import numpy as np

from mcfa_fast.classifiers import RunConfig

SEEN, UNSEEN, NEW = np.arange(10), np.array([10, 11]), 12
FEATURES, ATTRIBUTES = 12, 6

_OPTIONS = {
    "latent_features": 8,
    "visual_hidden": 32,
    "semantic_hidden": 32,
    "kl_weight": 0.01,
    "instances_per_class": 5,
    "epochs": 60,
    "learning_rate": 3e-3,
    "softmax.epochs": 10,
    "softmax.learning_rate": 1e-2,
    "softmax.unseen_samples": 100,
}


def config(task: str, *, head: str | None = None, **options) -> RunConfig:
    """A run of MCFA that trains within a second, with as many samples of seen classes as of unseen
    ones."""
    seen_samples = 100 if task == "gzsl" else 0
    options = {**_OPTIONS, "softmax.seen_samples": seen_samples, **options}
    return RunConfig.of("mcfa", task=task, head=head, options=options)


def make_semantics() -> np.ndarray:
    """Descriptors [13, A]: ten seen classes, two unseen ones, and one to be added later."""
    rng = np.random.default_rng(1)
    return rng.random((len(SEEN) + len(UNSEEN) + 1, ATTRIBUTES)).astype(np.float32)


def make_images(classes: np.ndarray, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`rows` images per class: a fixed linear view of the descriptor, with noise."""
    view = np.random.default_rng(2).normal(size=(ATTRIBUTES, FEATURES))
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, rows)
    noise = 0.15 * rng.normal(size=(len(labels), FEATURES))
    return (make_semantics()[labels] @ view + noise).astype(np.float32), labels
