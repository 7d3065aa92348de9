"""Clients that hold connections, ask for another host or fill the log keep nobody out."""

import http.client
import logging
import socket
import time
from contextlib import contextmanager

import numpy as np
import pytest
from http_service import NPY, npy, read_answer, running
from served_classifier import NAMES, VECTOR, solved
from zero_shot_data import FEATURES, NEW

from mcfa_fast.serving import Limits, Service, create_app
from mcfa_fast.serving.log import OncePerMinute

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def service(one_thread):
    return Service(solved())


@contextmanager
def bounded(service, **bounds):
    limits = Limits(**bounds)
    with running(create_app(service, limits), limits) as client:
        yield client


def is_closed(connection, seconds=10):
    """Whether the other side closes it within so many seconds, whatever it says before."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


HEAD = "GET /health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize("sent", ["", HEAD, "nonsense", f"{HEAD}\r\n", f"{HEAD}\r\n{HEAD}"])
def test_a_connection_without_a_whole_head_is_closed(service, sent):
    """Also one that has had an answer before."""
    with bounded(service, header_seconds=0.3) as client:
        with client.open(sent) as connection:
            start = time.monotonic()
            assert is_closed(connection)
            assert 0.2 < time.monotonic() - start < 5
        assert client.get("/health").status == 200


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(service):
    with bounded(service, header_seconds=0.5) as client, client.open("") as connection:
        start = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_heads_that_are_too_large_are_refused(service):
    with bounded(service, header_bytes=1000) as client:
        with client.open(HEAD + "x" * 3000) as connection:
            assert connection.recv(12) == b"HTTP/1.1 400"
            assert is_closed(connection)


def test_a_request_that_is_computed_is_not_cut_off(service, monkeypatch):
    """Nor is the time between requests on one connection that of a head."""
    classify = service.classify

    def slow(*arguments):
        time.sleep(1)
        return classify(*arguments)

    monkeypatch.setattr(service, "classify", slow)
    body = npy(np.zeros((1, FEATURES), np.float32))
    head = "POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream"
    with bounded(service, header_seconds=0.4) as client:
        with client.open(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n") as connection:
            connection.sendall(body)
            assert read_answer(connection).status == 200
            time.sleep(0.2)
            connection.sendall(f"{HEAD}\r\n".encode())
            assert read_answer(connection).status == 200


def test_whoever_only_holds_connections_keeps_nobody_out(service):
    with bounded(service, connections=5, header_seconds=60) as client:
        held = [client.open(HEAD) for _ in range(20)]
        for _ in range(10):
            assert client.get("/health").status == 200
        assert all(is_closed(connection) for connection in held[:15])
        # The latest ones were closed only as far as the others needed room.
        assert not is_closed(client.open(HEAD), seconds=0.2)
        for connection in held:
            connection.close()


def test_an_answer_that_is_not_taken_in_is_given_up(service):
    rows = 60_000  # of an answer that is larger than what the system itself holds for both sides
    body = npy(np.zeros((rows, FEATURES), np.uint8))
    head = (
        "POST /classify?top=12 HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
        f"{NPY['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    limits = {"max_rows": rows, "max_results": 10**6, "answer_seconds": 0.5}
    with bounded(service, **limits) as client, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", client.port))
        connection.settimeout(30)
        connection.sendall(head.encode() + body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        time.sleep(2)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
        assert client.get("/health").status == 200


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 201),
        ("LocalHost.:8000", 201),
        ("127.0.0.1", 201),
        ("127.0.0.1:8000", 201),
        ("[::1]:8000", 201),
        ("192.168.1.7", 201),
        ("scenes.example", 201),
        ("attacker.example", 421),
        ("attacker.example:8000", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("scenes.example.attacker.example", 421),
        ("", 421),
    ],
)
def test_a_name_that_leads_here_does_not_reach_the_service(host, status):
    app = create_app(Service(solved()), allow_add=True, allowed_hosts=["Scenes.example"])
    with running(app) as client:
        answer = client.request(
            "POST",
            "/classes",
            f'{{"name": "new", "vector": {VECTOR}}}',
            {"content-type": "application/json", "host": host},
        )
        assert answer.status == status
        count = client.get("/health").content["classes"]
    assert count == (NEW + 1 if status == 201 else NEW)
    assert status == 201 or "does not answer to that name" in answer.content["detail"]


def test_any_name_where_that_is_wanted(service):
    with running(create_app(service, allowed_hosts=["*"])) as client:
        answer = client.request("GET", "/classes", None, {"host": "any.example"})
    assert [one["name"] for one in answer.content["classes"]] == list(NAMES)


# Log


@pytest.fixture
def lines(monkeypatch):
    """A bounded logger, what it has written, and a clock to be set."""
    logger = logging.Logger("test")
    written, clock = [], [0.0]
    handler = logging.Handler()
    handler.emit = lambda record: written.append(handler.format(record))
    logger.addHandler(handler)
    logger.addFilter(OncePerMinute())
    monkeypatch.setattr("mcfa_fast.serving.log.time.monotonic", lambda: clock[0])
    return logger, written, clock


def test_one_line_of_a_kind_in_a_minute(lines):
    logger, written, clock = lines
    for number in range(1000):
        logger.warning("Invalid request %d", number)
        logger.error("Invalid request %d", number)
        logger.warning(f"socket.accept() out of system resource\nsocket: {number}")
    assert written == [
        "Invalid request 0",
        "Invalid request 0",
        "socket.accept() out of system resource",
    ]
    clock[0] = 61
    logger.warning("Invalid request %d", 7)
    assert written[3:] == ["Invalid request 7 (999 more since the last such line)"]


def test_an_exception_is_one_line_that_says_where(lines):
    logger, written, _ = lines
    try:
        raise RuntimeError("all\nlines")
    except RuntimeError as error:
        logger.error("Exception in ASGI application\n", exc_info=error)
    (line,) = written
    assert "\n" not in line
    assert line.startswith(r"Exception in ASGI application: RuntimeError('all\nlines') in ")
    assert f"{__file__}:" in line
