"""A generated dataset with the shape of the paper's, for benchmarks only."""

from __future__ import annotations

import numpy as np

from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits import ClassSplits, draw_classes


def synthetic(
    classes: int = 70,
    instances: int = 800,
    visual_features: int = 512,
    semantic_features: int = 1024,
    seed: int = 0,
) -> Dataset:
    """Generate a dataset for timing. Accuracy on it says nothing about real images.

    Descriptors are standard normal, a fixed random linear map takes them to class centres, and
    features are centres plus unit noise, cut off below 0 as ReLU features are. Rows are sorted by
    class. Six of seven classes are seen (60/10 for 70 classes) in five drawn splits.

    Args:
        classes: Number of classes C, at least 2.
        instances: Rows per class.
        visual_features: Width F of the features.
        semantic_features: Width A of the descriptors.
        seed: Seed of everything that is generated; the splits do not depend on it.

    Raises:
        ValueError: if a number is too small.

    >>> synthetic(classes=7, instances=4, visual_features=3, semantic_features=2)
    Dataset('synthetic': 28 rows, 3 features, 7 classes, 2 semantic features, 5 splits)
    """
    for name, value, least in (
        ("classes", classes, 2),
        ("instances", instances, 1),
        ("visual_features", visual_features, 1),
        ("semantic_features", semantic_features, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    rng = np.random.default_rng(seed)
    semantics = rng.standard_normal((classes, semantic_features), dtype=np.float32)
    mapping = rng.standard_normal((semantic_features, visual_features), dtype=np.float32)
    centres = semantics @ mapping / np.sqrt(np.float32(semantic_features))
    features = np.empty((classes, instances, visual_features), dtype=np.float32)
    for rows, centre in zip(features, centres, strict=True):
        rng.standard_normal(dtype=np.float32, out=rows)
        rows += centre
        np.maximum(rows, 0, out=rows)
    seen = max(1, classes * 6 // 7)
    unseen = classes - seen
    return Dataset(
        name="synthetic",
        features=features.reshape(-1, visual_features),
        labels=np.repeat(np.arange(classes), instances),
        class_names=tuple(f"class_{label:02d}" for label in range(classes)),
        semantics=semantics,
        splits=ClassSplits(
            {f"{seen}/{unseen}:{k}": draw_classes(classes, seen, unseen, seed=k) for k in range(5)}
        ),
    )
