"""Zero-shot scene classification with MCFA on fused, memory-linear contrastive losses.

:mod:`mcfa_fast.functional` and :mod:`mcfa_fast.losses` hold the losses, :mod:`mcfa_fast.compat`
drop-ins for other people's, :class:`MCFAClassifier` the trained zero-shot classifier, and the
command ``mcfa-fast`` runs the whole from data to results.
"""

from importlib.metadata import version

from mcfa_fast import compat, data, functional, ops, reference
from mcfa_fast.config import MCFAConfig
from mcfa_fast.inference import LatentIndex, MCFAClassifier
from mcfa_fast.losses import (
    ContrastiveLosses,
    KLDivergence,
    L1Reconstruction,
    StoVLoss,
    VtoSLoss,
    VtoVLoss,
    WassersteinAlignment,
)
from mcfa_fast.models import MCFA, MCFALoss
from mcfa_fast.training import Trainer

__version__ = version("mcfa_fast")

__all__ = [
    "MCFA",
    "ContrastiveLosses",
    "KLDivergence",
    "L1Reconstruction",
    "LatentIndex",
    "MCFAClassifier",
    "MCFAConfig",
    "MCFALoss",
    "StoVLoss",
    "Trainer",
    "VtoSLoss",
    "VtoVLoss",
    "WassersteinAlignment",
    "compat",
    "data",
    "functional",
    "ops",
    "reference",
]
