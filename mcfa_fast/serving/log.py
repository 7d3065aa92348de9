"""A log that no client can fill."""

from __future__ import annotations

import logging
import time
import traceback

__all__ = ["OncePerMinute", "bound_log"]

_SECONDS = 60.0


class OncePerMinute(logging.Filter):
    """Lets one record of a kind pass in a minute, as one line that counts those left out.

    Records are of a kind when a logger has them with the same level and first line of text (before
    its arguments are put in).
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.name, record.levelno, _first_line(str(record.msg))
        now = time.monotonic()
        last, left_out = self._passed.get(kind, (-_SECONDS, 0))
        if now - last < _SECONDS:
            self._passed[kind] = last, left_out + 1
            return False
        self._passed[kind] = now, 0
        text = _first_line(record.getMessage())
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text += f": {error!r:.200}"
            if frames := traceback.extract_tb(error.__traceback__):
                text += f" in {frames[-1].filename}:{frames[-1].lineno}"
        if left_out:
            text += f" ({left_out} more since the last such line)"
        record.msg, record.args = _first_line(text), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def bound_log() -> None:
    """Bounds what uvicorn and asyncio log, to one line per kind and minute."""
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(OncePerMinute())


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
