"""Options of selection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcfa_fast.training.config import Options

__all__ = ["Rule", "SelectionConfig"]

Rule = Literal["none", "calibration", "grid", "test"]


class SelectionConfig(Options):
    """What is chosen inside the seen classes, and how."""

    rule: Rule = Field(
        "calibration",
        description="Chosen on folds of the seen classes: nothing ('none'); what scores need, that "
        "is calibrations for task 'gzsl', the ensemble's weight and the scores to reject by "
        "('calibration'); a setting of the system's grid as well ('grid'). 'test' takes the "
        "softmax head's best epoch on the test rows, which is optimistic (reference presets only).",
    )
    transductive: bool = Field(
        False,
        description="Also choose, on the same folds, the strengths of transductive "
        "classification.",
    )
    folds: int = Field(
        3, ge=2, description="Parts of the seen classes, each of which is held out in turn."
    )
