"""Other people's zero-shot classifiers, to compare with on equal terms."""

from mcfa_fast.baselines.ale import ALE
from mcfa_fast.baselines.base import Baseline, TrainingData
from mcfa_fast.baselines.cmt import CMT
from mcfa_fast.baselines.conse import ConSE
from mcfa_fast.baselines.dap import DAP
from mcfa_fast.baselines.devise import DeViSE
from mcfa_fast.baselines.eszsl import ESZSL
from mcfa_fast.baselines.iap import IAP
from mcfa_fast.baselines.latem import LatEm
from mcfa_fast.baselines.ridge import Ridge
from mcfa_fast.baselines.sae import SAE
from mcfa_fast.baselines.sje import SJE
from mcfa_fast.baselines.sse import SSE
from mcfa_fast.baselines.sync import SynC

__all__ = [
    "ALE",
    "CMT",
    "DAP",
    "ESZSL",
    "IAP",
    "SAE",
    "SJE",
    "SSE",
    "Baseline",
    "ConSE",
    "DeViSE",
    "LatEm",
    "Ridge",
    "SynC",
    "TrainingData",
]
