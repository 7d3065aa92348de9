"""A small problem that every system can solve: features and descriptors are of one space."""

from __future__ import annotations

import numpy as np

from mcfa_fast.data import Dataset, Split
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import SYSTEMS

SEEN, UNSEEN, NEW = np.arange(20), np.array([20, 21]), 22
FEATURES = 8
NAMES = tuple("abcdefghijklmnopqrstuv")


def make_semantics() -> np.ndarray:
    """Descriptors [23, A]: twenty seen classes, two unseen ones, and one to be added later."""
    seen = np.random.default_rng(0).normal(size=(len(SEEN), FEATURES))
    others = seen[0:6:2] + seen[1:6:2]  # each lies between two seen ones, each of them its own
    return np.concatenate([seen, others]).astype(np.float32)


def make_images(classes: np.ndarray, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`rows` images per class: its descriptor, slightly mixed, with noise."""
    view = np.eye(FEATURES) + 0.1 * np.random.default_rng(2).normal(size=(FEATURES, FEATURES))
    labels = np.repeat(classes, rows)
    noise = 0.2 * np.random.default_rng(seed).normal(size=(len(labels), FEATURES))
    return (make_semantics()[labels] @ view + noise).astype(np.float32), labels


def make_dataset(rows: int = 12) -> tuple[Dataset, dict[str, Split]]:
    """Images of all classes but the last, with a split for each task."""
    features, labels = make_images(np.arange(NEW), rows)
    dataset = Dataset("contract", features, labels, NAMES, make_semantics()[:NEW])
    seen = np.flatnonzero(labels < len(SEEN))
    tested = seen[seen % 4 == 0]
    unseen = np.flatnonzero(labels >= len(SEEN))
    zsl = Split("20/2:0", False, SEEN, UNSEEN, seen, seen[:0], unseen)
    gzsl = Split("20/2:0", True, SEEN, UNSEEN, np.setdiff1d(seen, tested), tested, unseen)
    return dataset, {"zsl": zsl, "gzsl": gzsl}


_LATENTS = {"latent_features": 8, "learning_rate": 5e-3, "epochs": 30, "kl_weight": 0.01}
# What some systems need more than a few epochs for.
_ENOUGH = {
    "mcfa": _LATENTS,
    "cada-vae": {
        **_LATENTS,
        "alignment_weight": 1.0,
        "cross_reconstruction_warmup": None,
        "alignment_warmup": None,
    },
}


def short(system: str, **options) -> dict:
    """Options of small networks and few epochs, as far as the system has them."""
    config = SYSTEMS[system].system.Config
    small = {name: 24 for name in config.model_fields if "hidden" in name}
    if issubclass(config, TrainableConfig):
        small |= {"epochs": 3, "batch_size": 16}
    if "softmax" in SYSTEMS[system].heads:
        small |= {"softmax.epochs": 20, "softmax.learning_rate": 3e-2}
    return {**small, **_ENOUGH.get(system, {}), **options}
