"""Which rank computes which pairs of rows of the global batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_NOTHING = slice(0, 0)


class Visit(NamedTuple):
    """One step of a rank: rows of a host meet its own, while its own visit a guest."""

    host: int
    """The rank whose rows arrive here."""
    own: slice
    """Rows of this rank that meet them."""
    theirs: slice
    """Rows of the host that arrive."""
    guest: int
    """The rank to which rows of this one travel."""
    sent: slice
    """Those rows, for which the guest gives back what it has computed."""


def visits(rank: int, anchors: Sequence[int], keys: Sequence[int] | None) -> list[Visit]:
    """The steps of a rank; its own rows with its own come before them.

    With keys, each rank meets the keys of every other. Without, the anchors are their own keys,
    and every pair of ranks meets once in the whole group: rank r is the host's guest at distance
    1 to (R-1)/2 from it, and two ranks at distance R/2 share their rows so that both have as much
    to do.

    Args:
        rank: The rank.
        anchors: Rows of each rank.
        keys: Keys of each rank; None where anchors are their own keys.

    Example:
        >>> [visit.host for visit in visits(0, [4, 4, 4, 4, 4], None)]
        [1, 2]
        >>> visits(0, [4, 4], None)[0].own, visits(1, [4, 4], None)[0].theirs
        (slice(0, 2, None), slice(2, 4, None))
    """
    size = len(anchors)
    steps = range(1, size // 2 + 1 if keys is None else size)
    found = []
    for step in steps:
        host, guest = (rank + step) % size, (rank - step) % size
        own, theirs = _meeting(rank, host, anchors, keys)
        _, sent = _meeting(guest, rank, anchors, keys)
        found.append(Visit(host, own, theirs, guest, sent))
    return found


def _meeting(
    rank: int, host: int, anchors: Sequence[int], keys: Sequence[int] | None
) -> tuple[slice, slice]:
    """The rows of a rank and of its host that meet at the rank."""
    size = len(anchors)
    own, theirs = slice(0, anchors[rank]), slice(0, (anchors if keys is None else keys)[host])
    if keys is None and 2 * ((host - rank) % size) == size:
        first = min(rank, host)
        half = _share(first, max(rank, host), anchors)
        if rank == first:
            own = slice(0, half)
        else:
            theirs = slice(half, anchors[first])
    if own.start == own.stop or theirs.start == theirs.stop:
        return _NOTHING, _NOTHING
    return own, theirs


def _share(first: int, second: int, rows: Sequence[int]) -> int:
    """How many rows of the first rank meet the second's there, so that both do as much."""
    size = len(rows)

    def pairs(rank: int) -> float:
        near = sum(rows[(rank + step) % size] for step in range(1, (size + 1) // 2))
        return rows[rank] * (rows[rank] / 2 + near)

    together = rows[first] * rows[second]
    if together == 0:
        return 0
    share = 0.5 + (pairs(second) - pairs(first)) / (2 * together)
    return round(min(max(share, 0.0), 1.0) * rows[first])
