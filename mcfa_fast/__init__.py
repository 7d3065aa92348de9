"""Zero-shot scene classification on fused, memory-linear contrastive losses.

:mod:`mcfa_fast.functional` and :mod:`mcfa_fast.losses` hold the losses, :mod:`mcfa_fast.compat`
drop-ins for other people's; they need PyTorch and NumPy alone. :class:`ZeroShotClassifier` is the
trained classifier over any system, and the command ``mcfa-fast`` runs the whole from data to
results; they need ``pip install mcfa_fast[all]`` or the extra that an error names.

Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcfa_fast import compat, data, distributed, functional, losses, ops, reference
    from mcfa_fast.chunked import in_chunks
    from mcfa_fast.classifiers import MCFAClassifier, RunConfig, ZeroShotClassifier
    from mcfa_fast.export import export_classifier, load_exported
    from mcfa_fast.losses import (
        CLIPLoss,
        ContrastiveLosses,
        CrossBatchMemory,
        InfoNCELoss,
        KLDivergence,
        L1Reconstruction,
        NTXentLoss,
        StoVLoss,
        VtoSLoss,
        VtoVLoss,
        WassersteinAlignment,
    )
    from mcfa_fast.search import LatentIndex
    from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss
    from mcfa_fast.systems.trainer import Trainer

    __version__: str

_MODULES = ("compat", "data", "distributed", "functional", "losses", "ops", "reference")
_NAMES = {
    "mcfa_fast.chunked": ("in_chunks",),
    "mcfa_fast.classifiers": ("MCFAClassifier", "RunConfig", "ZeroShotClassifier"),
    "mcfa_fast.export": ("export_classifier", "load_exported"),
    "mcfa_fast.losses": (
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
    ),
    "mcfa_fast.search": ("LatentIndex",),
    "mcfa_fast.systems.mcfa": ("MCFA", "MCFAConfig", "MCFALoss"),
    "mcfa_fast.systems.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "MCFA",
    "CLIPLoss",
    "ContrastiveLosses",
    "CrossBatchMemory",
    "InfoNCELoss",
    "KLDivergence",
    "L1Reconstruction",
    "LatentIndex",
    "MCFAClassifier",
    "MCFAConfig",
    "MCFALoss",
    "NTXentLoss",
    "RunConfig",
    "StoVLoss",
    "Trainer",
    "VtoSLoss",
    "VtoVLoss",
    "WassersteinAlignment",
    "ZeroShotClassifier",
    "compat",
    "data",
    "distributed",
    "export_classifier",
    "functional",
    "in_chunks",
    "load_exported",
    "losses",
    "ops",
    "reference",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mcfa_fast")
    if name in _MODULES:
        return import_module(f"mcfa_fast.{name}")
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mcfa_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
