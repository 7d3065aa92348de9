"""Other people's zero-shot classifiers, to compare with on equal terms."""

from mcfa_fast.baselines.ale import ALE
from mcfa_fast.baselines.base import Baseline, TrainingData
from mcfa_fast.baselines.cmt import CMT
from mcfa_fast.baselines.devise import DeViSE
from mcfa_fast.baselines.latem import LatEm
from mcfa_fast.baselines.sje import SJE
from mcfa_fast.baselines.sse import SSE

__all__ = [
    "ALE",
    "CMT",
    "SJE",
    "SSE",
    "Baseline",
    "DeViSE",
    "LatEm",
    "TrainingData",
]
