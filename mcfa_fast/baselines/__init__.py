"""Other people's zero-shot classifiers, to compare with on equal terms."""

from mcfa_fast.baselines.base import Baseline, TrainingData

__all__ = [
    "Baseline",
    "TrainingData",
]
