"""Only requests that were meant for this service."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["HostCheck"]


class HostCheck:
    """Answers 421 to requests for a name that is not this service's.

    A page from elsewhere can make its own name lead here (DNS rebinding); a browser then takes the
    service for a part of the page, and would let it add classes. Its requests carry that name in
    their header ``Host``. An address in numbers cannot be rebound, so all of these are accepted,
    and so is ``localhost``.

    Args:
        app: what answers requests that pass.
        names: further names; ``"*"`` accepts all.

    Source:
        Jackson et al., "Protecting browsers from DNS rebinding attacks", 2007, Section 5.2.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", *(_normal(name) for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._accepts(scope):
            detail = "host: this service does not answer to that name (see --allowed-host)"
            answer = JSONResponse({"detail": detail}, 421, headers={"connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _accepts(self, scope: Scope) -> bool:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        # No browser leaves the header out.
        return "*" in self._names or all(self._is_ours(_host_of(value)) for value in given)

    def _is_ours(self, host: str) -> bool:
        return host in self._names or _is_address(host)


def _host_of(header: str) -> str:
    """The host of ``host``, ``host:port`` or ``[v6 address]:port``."""
    if header.startswith("["):
        return _normal(header[1:].partition("]")[0])
    return _normal(header.partition(":")[0])


def _normal(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
