"""Connections that nobody can hold for nothing."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcfa_fast.serving.limits import Limits

__all__ = ["BACKLOG", "server_config"]

BACKLOG = 128
"""Connections that the system holds until they are taken in, and that are taken in at once."""


def server_config(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """How uvicorn is to serve an application, within the limits of connections and time.

    Args:
        app: what answers.
        limits: its `connections`, `header_bytes`, `header_seconds` and `answer_seconds`.
    """
    return uvicorn.Config(
        app,
        http=_bounded_connections(limits),
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=30,
    )


def _bounded_connections(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with limits of connections and time.

    A connection on which no whole request head arrives in time is closed, and so is one whose
    client does not take in its answer. Where there are as many connections as there may be, the one
    that has waited longest for its client makes room, so that clients that only hold connections
    keep nobody out.
    """
    waiting: dict[BoundedConnection, None] = {}  # in the order in which they began to

    class BoundedConnection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait(limits.header_seconds)
            if len(self.connections) > limits.connections:
                # This one itself, where all others are being answered.
                next(iter(waiting))._give_up()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_waiting()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            previous = self.cycle
            super().handle_events()
            is_new = self.cycle is not previous  # a request's head is whole
            if is_new and not self.cycle.response_complete and not self.flow.write_paused:
                self._end_waiting()

        def on_response_complete(self) -> None:
            if not self.flow.write_paused:
                self._wait(limits.header_seconds)
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait(limits.answer_seconds)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.cycle is None or self.cycle.response_complete:
                self._wait(limits.header_seconds)
            else:
                self._end_waiting()

        def _wait(self, seconds: float) -> None:
            """It is the client's turn, for so long."""
            self._end_waiting()
            waiting[self] = None
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def _end_waiting(self) -> None:
            waiting.pop(self, None)
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._end_waiting()
            self.transport.abort()

    return BoundedConnection
