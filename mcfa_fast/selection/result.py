"""What selection has chosen, as it is kept with a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mcfa_fast.selection.rejection import Rejection

__all__ = ["Selection", "TransductionChoice"]


@dataclass(frozen=True)
class TransductionChoice:
    """Strengths of transductive classification, as they were chosen for a head.

    Attributes:
        setting: options that differ from the defaults.
        score: mean over the folds, in 0..1, of the accuracy among held-out classes, or for a
            generalized task of the harmonic mean.
    """

    setting: Mapping[str, Any]
    score: float


@dataclass(frozen=True)
class Selection:
    """Choices made on folds of the seen classes.

    Attributes:
        score: mean over the folds, in 0..1, of the head that answers: accuracy among held-out
            classes, or for a generalized task the harmonic mean with the chosen calibration.
        held_out: numbers of classes held out, per fold: a score is among so many.
        setting: the setting of the system's grid; empty where none was chosen.
        calibration: for a generalized task, per head, what to subtract from the scores of seen
            classes, as a multiple of the head's unit; empty otherwise.
        weight: share of the nearest class in the ensemble; None without one.
        rejection: per head, how high the best scores of images of held-out classes are.
        transduction: per head, the strengths of transductive classification; empty where none
            were chosen.
    """

    score: float
    held_out: tuple[int, ...]
    setting: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    weight: float | None = None
    rejection: Mapping[str, Rejection] = field(default_factory=dict)
    transduction: Mapping[str, TransductionChoice] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Selection:
        """What :meth:`to_dict` gave, perhaps by way of JSON."""
        rejection = {
            head: Rejection(tuple(found["known"]), tuple(found["unknown"]))
            for head, found in content["rejection"].items()
        }
        transduction = {
            head: TransductionChoice(**found)
            for head, found in content.get("transduction", {}).items()
        }
        found = {
            "held_out": tuple(content["held_out"]),
            "rejection": rejection,
            "transduction": transduction,
        }
        return cls(**{**content, **found})
