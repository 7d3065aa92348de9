"""Imports the losses of mcfa_fast from the source tree where the whole package cannot be imported.

A machine that is used for its GPU may lack what the rest of the package needs (pydantic, FAISS) and
the installed metadata. The losses need PyTorch alone.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load() -> tuple[types.ModuleType, types.ModuleType]:
    """The modules (mcfa_fast.functional, mcfa_fast.reference)."""
    try:
        import mcfa_fast
    except ImportError:  # PackageNotFoundError is one too
        mcfa_fast = types.ModuleType("mcfa_fast")
        mcfa_fast.__path__ = [str(ROOT / "mcfa_fast")]
        sys.modules["mcfa_fast"] = mcfa_fast
    from mcfa_fast import functional, reference

    return functional, reference
