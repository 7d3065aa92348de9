"""A service on a real server of this process, and a client for it."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import uvicorn

from mcfa_fast.serving import Limits, server_config

JSON = {"content-type": "application/json"}
NPY = {"content-type": "application/octet-stream"}


class Answer(NamedTuple):
    status: int
    content: Any


class Client:
    """Every request on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Answer:
        return self.request("GET", path, None, {})

    def post(self, path: str, body: Any, headers: dict[str, str] = JSON) -> Answer:
        """`body` is sent as it is when bytes, in chunks when a generator, else as JSON."""
        if not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = json.dumps(body).encode()
        return self.request("POST", path, body, headers)

    def request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read()))
        finally:
            connection.close()

    def open(self, text: str) -> socket.socket:
        """A connection on which only this much of a request has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(text.encode())
        return connection


def read_answer(connection: socket.socket) -> Answer:
    """The answer on an open connection; fails if it never comes."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, json.loads(response.read()))


@contextmanager
def running(app: Any, limits: Limits | None = None):
    """Serves an application on a free port for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(server_config(app, limits or Limits()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()
