"""Going through many rows a chunk at a time, so that memory maps stay on disk."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["row_chunks"]


def row_chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `count` rows.

    There is one slice at least: of no rows, when there are none.

    Example:
        >>> [(rows.start, rows.stop) for rows in row_chunks(5, size=2)]
        [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, max(count, 1), size):
        yield slice(start, min(start + size, count))
