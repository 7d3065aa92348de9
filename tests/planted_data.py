"""A problem with a planted linear compatibility: features are a linear view of descriptors."""

from __future__ import annotations

import numpy as np

SEEN, UNSEEN = np.arange(24), np.arange(24, 30)
FEATURES, ATTRIBUTES = 20, 8


def planted_semantics() -> np.ndarray:
    """Descriptors [30, A]; every unseen class lies between two seen ones, each of them its own."""
    seen = np.random.default_rng(0).normal(size=(len(SEEN), ATTRIBUTES))
    unseen = seen[0 : 2 * len(UNSEEN) : 2] + seen[1 : 2 * len(UNSEEN) : 2]
    return np.concatenate([seen, unseen]).astype(np.float32)


def planted_images(
    classes: np.ndarray, rows: int = 20, seed: int = 0, noise: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, F] and labels [n] of `rows` images per class."""
    view = np.random.default_rng(1).normal(size=(ATTRIBUTES, FEATURES))
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, rows)
    features = planted_semantics()[labels] @ view + noise * rng.normal(size=(len(labels), FEATURES))
    return features.astype(np.float32), labels
