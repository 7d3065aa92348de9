"""The embedded dataset: scikit-learn's handwritten digits with attributes written by hand."""

from __future__ import annotations

import numpy as np

from mcfa_fast._extras import require
from mcfa_fast.data.dataset import Dataset
from mcfa_fast.data.splits import ClassSplits, draw_classes

ATTRIBUTES: dict[str, tuple[float, ...]] = {
    # digit:                0    1    2    3    4    5    6    7    8    9
    # The segments of a seven-segment display that are lit.
    "segment_top":         (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "segment_upper_left":  (1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0),
    "segment_upper_right": (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    "segment_middle":      (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0),
    "segment_lower_left":  (1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    "segment_lower_right": (1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "segment_bottom":      (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0),
    # Closed loops, and where they are.
    "loops_half_count":    (0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 1.0, 0.5),
    "loop_full_height":    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "loop_upper":          (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0),
    "loop_lower":          (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    # Strokes: how often the pen is set down, free ends, and meeting points.
    "strokes_half_count":  (0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5),
    "ends_third_count":    (0.0, 2/3, 2/3, 2/3, 1.0, 2/3, 1/3, 2/3, 0.0, 1/3),
    "junction":            (0.0, 0.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0),
    "vertical_stroke":     (0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5),
    "horizontal_stroke":   (0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0),
    "diagonal_stroke":     (0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0),
    # The share of the outline that is curved, and the sides to which bays open.
    "curvature":           (1.0, 0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.75),
    "open_upper_left":     (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    "open_lower_left":     (0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "open_upper_right":    (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0),
    "open_lower_right":    (0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "open_top":            (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    # Symmetry and width.
    "mirror_left_right":   (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "mirror_top_bottom":   (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "narrow":              (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}  # fmt: skip
"""Structural attributes, each with its value in 0..1 for the digits 0 to 9 as usually written."""


def digits() -> Dataset:
    """Return 1,797 real images of handwritten digits, useful without any download.

    Features are the 8 x 8 pixels (ink from 0 to 16) as float32 ``[1797, 64]``. Descriptors are the
    26 :data:`ATTRIBUTES`, written from the shapes of the digits and not tuned on any result. The
    splits ``"7/3:0"`` to ``"7/3:4"`` are drawn with
    :func:`~mcfa_fast.data.splits.draw_classes`, seeds 0 to 4; the rows of each class are divided
    75/25 with :func:`~mcfa_fast.data.splits.partition_rows`.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, as shipped with scikit-learn.

    Raises:
        MissingExtraError: without scikit-learn.

    >>> digits()
    Dataset('digits': 1797 rows, 64 features, 10 classes, 26 semantic features, 5 splits)
    """
    require("zsl", "the dataset 'digits'")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Dataset(
        name="digits",
        features=pixels.astype(np.float32),
        labels=labels,
        class_names=tuple("0123456789"),
        semantics=np.array(list(ATTRIBUTES.values()), dtype=np.float32).T,
        splits=ClassSplits({f"7/3:{k}": draw_classes(10, 7, 3, seed=k) for k in range(5)}),
    )
