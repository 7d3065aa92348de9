"""The losses as modules: each stores the options of its twin in :mod:`mcfa_fast.functional`.

All of them compile with ``torch.jit.script`` and run from C++ without Python.
"""

from __future__ import annotations

from mcfa_fast.losses.contrastive import (
    ContrastiveLosses,
    StoVLoss,
    VtoSLoss,
    VtoVLoss,
)
from mcfa_fast.losses.gaussians import (
    KLDivergence,
    L1Reconstruction,
    WassersteinAlignment,
)
from mcfa_fast.losses.memory import CrossBatchMemory
from mcfa_fast.losses.pairs import CLIPLoss, InfoNCELoss, NTXentLoss

__all__ = [
    "CLIPLoss",
    "ContrastiveLosses",
    "CrossBatchMemory",
    "InfoNCELoss",
    "KLDivergence",
    "L1Reconstruction",
    "NTXentLoss",
    "StoVLoss",
    "VtoSLoss",
    "VtoVLoss",
    "WassersteinAlignment",
]
