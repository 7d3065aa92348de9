"""Faults of requests to the HTTP service: each is answered, none is more than that."""

import json
import time

import numpy as np
import pytest
from fastapi import HTTPException
from http_service import JSON, NPY, npy, read_answer, running
from hypothesis import given, settings
from hypothesis import strategies as st
from served_classifier import IMAGES, solved, trained
from zero_shot_data import FEATURES

from mcfa_fast.serving import Limits, Service, create_app
from mcfa_fast.serving.bodies import features_reader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(one_thread):
    return solved()


@pytest.fixture(scope="module")
def client(one_thread):
    limits = Limits(max_rows=100, max_bytes=100_000)
    with running(create_app(Service(trained()), limits)) as one:
        yield one


ROW = [0.5] * FEATURES
GOOD = npy(np.zeros((2, FEATURES), np.float32))


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def described(shape, descr="<f4"):
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", JSON, 400, "body: Invalid JSON"),
        (b"{", JSON, 400, "body: Invalid JSON"),
        (b"\xff\xfe", JSON, 400, "body: Invalid JSON"),
        (b"[" * 50_000, JSON, 400, "body: Invalid JSON"),
        (b'{"features": [[' + b"9" * 50_000 + b"]]}", JSON, 400, "number out of range"),
        ([], JSON, 422, "body: "),
        ({}, JSON, 422, "features: Field required"),
        ({"features": [ROW], "feature": 1}, JSON, 422, "feature: Extra inputs"),
        ({"features": []}, JSON, 422, "features: List should have at least 1"),
        ({"features": ROW}, JSON, 422, "features.0: Input should be a valid array"),
        ({"features": [ROW, ROW[1:]]}, JSON, 422, "features.1: List should have at least 12"),
        ({"features": [[*ROW, 1]]}, JSON, 422, "features.0: List should have at most 12"),
        ({"features": [[*ROW[1:], "1"]]}, JSON, 422, "features.0.11: Input should be a valid num"),
        ({"features": [[*ROW[1:], True]]}, JSON, 422, "features.0.11: Input should be a valid num"),
        ({"features": [[*ROW[1:], None]]}, JSON, 422, "features.0.11: Input should be a valid num"),
        ({"features": [[*ROW[1:], np.nan]]}, JSON, 422, "features.0.11: Input should be a finite"),
        ({"features": [[*ROW[1:], np.inf]]}, JSON, 422, "features.0.11: Input should be a finite"),
        ({"features": [ROW, [*ROW[1:], 1e300]]}, JSON, 422, "features.1.11: Input should be less"),
        ({"features": [ROW] * 101}, JSON, 413, "features: List should have at most 100"),
        ({"features": [ROW]}, {}, 415, "content-type: expected application/json or"),
        ({"features": [ROW]}, {"content-type": "text/plain"}, 415, "got 'text/plain'"),
        ({"features": [ROW]}, {**JSON, "content-encoding": "gzip"}, 415, "got 'gzip'"),
        (b"", NPY, 400, "body: not a .npy file"),
        (b"nonsense", NPY, 400, "body: not a .npy file"),
        (GOOD[:20], NPY, 400, "no header of a plain array"),
        (GOOD[:-1], NPY, 400, "not as long as its header says"),
        (GOOD + b"x", NPY, 400, "not as long as its header says"),
        (header("__import__('os').abort()"), NPY, 400, "no header of a plain array"),
        (header("(" * 9_000), NPY, 400, "no header of a plain array"),
        (b"\x93NUMPY\x03\x00" + GOOD[8:], NPY, 400, "body: not a .npy file"),
        (described(f"({10**15}, 12)"), NPY, 413, "at most 100 rows"),
        (described(f"(2, {10**30})"), NPY, 422, "expected shape [N, 12]"),
        (described("(-2, 12)"), NPY, 400, "no header of a plain array"),
        (described("(0, 12)"), NPY, 422, "expected shape [N, 12]"),
        (described("(24,)"), NPY, 422, "expected shape [N, 12], got (24,)"),
        (described("(1, 12)", "|O"), NPY, 422, "expected real numbers, got dtype '|O'"),
        (npy(np.zeros((1, 12), "c8")), NPY, 422, "expected real numbers, got dtype '<c8'"),
        (npy(np.zeros((1, 12), [("a", "f4")])), NPY, 400, "no header of a plain array"),
        (npy(np.zeros((1, 12), "S4")), NPY, 422, "expected real numbers, got dtype '|S4'"),
        (npy(np.full((1, 12), np.nan)), NPY, 422, "features: NaN, infinite or too large"),
        (npy(np.full((1, 12), 1e300)), NPY, 422, "features: NaN, infinite or too large"),
        (npy(np.zeros((101, 12), "u1")), NPY, 413, "at most 100 rows, got 101"),
        (b"x" * 100_001, NPY, 413, "body: expected at most 100000 bytes"),
    ],
)
def test_faults_are_answered(client, body, headers, status, message):
    answer = client.post("/classify", body, headers)
    assert answer.status == status
    assert set(answer.content) == {"detail"} and message in answer.content["detail"]
    assert len(answer.content["detail"]) < 500
    assert client.post("/classify", GOOD, NPY).status == 200


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/classify?head=forest", 422, "head: Input should be 'softmax'"),
        ("/classify?top=0", 422, "top: Input should be greater than or equal to 1"),
        ("/classify?top=x", 422, "Input should be a valid integer"),
        ("/classify?top=1_0", 422, "Input should be a valid integer"),
        ("/classify?top=" + "9" * 5000, 422, "Input should be a valid integer"),
        ("/classes", 403, "does not take in classes"),
        ("/health", 405, "Method Not Allowed"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_bad_paths_and_parameters(client, path, status, message):
    answer = client.post(path, {"features": [ROW]})
    assert answer.status == status and message in answer.content["detail"]


def test_a_body_larger_than_it_may_be_is_not_read(client):
    """Refused by its claimed length at once, or where it passes the limit."""
    request = "POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with client.open(f"{request}content-length: {10**12}\r\n\r\n") as connection:
        assert read_answer(connection).status == 413
        assert connection.recv(1) == b""  # closed
    with client.open(f"{request}transfer-encoding: chunked\r\n\r\n") as connection:
        for _ in range(11):
            connection.sendall(b"2710\r\n" + b"[" * 10_000 + b"\r\n")
        assert read_answer(connection).status == 413
    with client.open(f"{request}content-length: {'9' * 5000}\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert client.get("/health").status == 200


def test_answers_are_bounded_too(classifier):
    with running(create_app(Service(classifier), Limits(max_results=72))) as client:
        assert client.post("/classify?top=2", {"features": IMAGES.tolist()}).status == 200
        answer = client.post("/classify?top=3", {"features": IMAGES.tolist()})
        assert answer.status == 413 and "at most 72 classes over all rows, got 108" in str(answer)
        assert client.post("/classify?top=999", {"features": IMAGES[:6].tolist()}).status == 200


def test_chunked_bodies_are_read(classifier, client):
    body = (GOOD[start : start + 7] for start in range(0, len(GOOD), 7))
    assert client.post("/classify", body, NPY).status == 200


def test_a_body_that_does_not_come_is_not_waited_for(classifier):
    app = create_app(Service(classifier), Limits(body_seconds=0.2))
    request = "POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with running(app) as client, client.open(f"{request}content-length: 9\r\n\r\n[") as connection:
        answer = read_answer(connection)
        assert (answer.status, answer.content["detail"]) == (408, "body: not all here after 0.2 s")


def eventually(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come about within seconds")


def test_clients_that_leave_and_more_requests_than_allowed(classifier):
    app = create_app(Service(classifier), Limits(pending=2))
    request = "POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
    start = f"{request}{NPY['content-type']}\r\ncontent-length: {len(GOOD)}\r\n\r\n"
    with running(app) as client:
        waiting = [client.open(start) for _ in range(2)]
        # Until both have been taken in.
        eventually(lambda: client.post("/classify", GOOD, NPY).status == 503)
        assert client.get("/health").status == 200
        waiting[0].close()
        waiting[1].sendall(GOOD)
        assert read_answer(waiting[1]).status == 200
        waiting[1].close()
        eventually(lambda: client.post("/classify", GOOD, NPY).status == 200)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from([JSON, NPY]))
def test_no_body_is_more_than_a_fault(data, kind):
    """Bodies that differ from good ones in a few bytes, or have nothing to do with them."""
    good = GOOD if kind is NPY else json.dumps({"features": [ROW]}).encode()
    read = features_reader(FEATURES, Limits(max_rows=100))
    if data.draw(st.booleans()):
        body = data.draw(st.binary(max_size=300))
    else:
        body = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        body = bytes(body)
    try:
        features = read(body, kind["content-type"])
    except HTTPException as error:
        assert error.status_code in (400, 413, 422)
    else:
        assert features.dtype == np.float32 and features.shape[1] == FEATURES
        assert np.isfinite(features).all()
