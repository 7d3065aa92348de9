"""Nearest-neighbour search over vectors of classes."""

from mcfa_fast.search.index import LatentIndex

__all__ = ["LatentIndex"]
