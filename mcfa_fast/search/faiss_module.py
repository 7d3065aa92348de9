"""FAISS, where it is installed."""

from __future__ import annotations

import functools
from types import ModuleType

__all__ = ["find_faiss", "require_faiss"]


@functools.cache
def find_faiss() -> ModuleType | None:
    """The module, or None when it is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def require_faiss(what: str) -> ModuleType:
    """The module, for what cannot be done without it.

    Raises:
        ImportError: that says what needs FAISS and how to install it.
    """
    faiss = find_faiss()
    if faiss is None:
        raise ImportError(f"{what} needs FAISS: pip install faiss-cpu")
    return faiss
