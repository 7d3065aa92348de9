"""FAISS, where it is installed."""

from __future__ import annotations

import functools
from types import ModuleType

from mcfa_fast._extras import require

__all__ = ["find_faiss", "require_faiss"]


@functools.cache
def find_faiss() -> ModuleType | None:
    """The module; None when it is not installed or does not load."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def require_faiss(what: str) -> ModuleType:
    """The module, for what cannot be done without it.

    Raises:
        MissingExtraError: that says what needs FAISS and how to install it.
        ImportError: where it is installed but does not load, with the cause.
    """
    require("index", what)
    import faiss

    return faiss
