"""A small problem that every system can solve: features and descriptors are of one space."""

from __future__ import annotations

import numpy as np

from mcfa_fast.data import Dataset, Split
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import SYSTEMS

SEEN, UNSEEN, NEW = np.arange(8), np.array([8, 9]), 10
FEATURES = 12
NAMES = tuple("abcdefghij")


def make_semantics() -> np.ndarray:
    """Descriptors [11, A]: eight seen classes, two unseen ones, and one to be added later."""
    attributes = np.random.default_rng(4).random((NEW + 1, FEATURES)) > 0.5
    return attributes.astype(np.float32)


def make_images(classes: np.ndarray, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`rows` images per class: its descriptor, slightly mixed, with noise."""
    view = np.eye(FEATURES) + 0.1 * np.random.default_rng(2).normal(size=(FEATURES, FEATURES))
    labels = np.repeat(classes, rows)
    noise = 0.2 * np.random.default_rng(seed).normal(size=(len(labels), FEATURES))
    return (make_semantics()[labels] @ view + noise).astype(np.float32), labels


def make_dataset(rows: int = 16) -> tuple[Dataset, dict[str, Split]]:
    """Images of all classes but the last, with a split for each task."""
    features, labels = make_images(np.arange(NEW), rows)
    dataset = Dataset("contract", features, labels, NAMES, make_semantics()[:NEW])
    seen = np.flatnonzero(labels < len(SEEN))
    tested = seen[seen % 4 == 0]
    unseen = np.flatnonzero(labels >= len(SEEN))
    zsl = Split("8/2:0", False, SEEN, UNSEEN, seen, seen[:0], unseen)
    gzsl = Split("8/2:0", True, SEEN, UNSEEN, np.setdiff1d(seen, tested), tested, unseen)
    return dataset, {"zsl": zsl, "gzsl": gzsl}


_LATENTS = {"latent_features": 8, "learning_rate": 3e-3, "epochs": 20, "kl_weight": 0.01}
# What some systems need more than a few epochs for.
_ENOUGH = {
    "mcfa": _LATENTS,
    "cada-vae": {**_LATENTS, "cross_reconstruction_warmup": None, "alignment_warmup": None},
}


def short(system: str, **options) -> dict:
    """Options of small networks and few epochs, as far as the system has them."""
    config = SYSTEMS[system].system.Config
    small = {name: 24 for name in config.model_fields if "hidden" in name}
    if issubclass(config, TrainableConfig):
        small |= {"epochs": 3, "batch_size": 16}
    if "softmax" in SYSTEMS[system].heads:
        small |= {"softmax.epochs": 3, "softmax.learning_rate": 1e-2}
    return {**small, **_ENOUGH.get(system, {}), **options}
