"""A lock that many readers share and a writer has alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SharedLock"]


class SharedLock:
    """Readers at the same time, or one writer; a writer that waits goes before later readers.

    It is not reentrant.

    Example:
        >>> lock = SharedLock()
        >>> with lock.shared():
        ...     pass  # others may read, too
        >>> with lock.alone():
        ...     pass  # nobody else reads or writes
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """For reading."""
        with self._condition:
            self._condition.wait_for(lambda: not (self._writing or self._waiting))
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For writing."""
        with self._condition:
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: not (self._writing or self._readers))
                self._writing = True
            finally:
                self._waiting -= 1
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._condition.notify_all()
