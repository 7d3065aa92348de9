"""The HTTP service on a real server: answers, limits, added classes, many clients at once."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi import HTTPException
from http_service import JSON, NPY, npy, read_answer, running
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_model import describe, save_sentence_model
from zero_shot_data import ATTRIBUTES, FEATURES, NEW, SEEN, config, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.inference import METHODS
from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.serving import Limits, Service, create_app
from mcfa_fast.serving.bodies import features_reader

NAMES = (*"abcdefghijk", 'ℓ, "quoted"')
IMAGES = make_images(np.arange(NEW), rows=3, seed=9)[0]
VECTOR = make_semantics()[NEW].tolist()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(one_thread):
    classifier = mf.MCFAClassifier(config("gzsl", epochs=3), calibration=0.1)
    return classifier.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW], class_names=NAMES)


@pytest.fixture(scope="module")
def client(classifier):
    with running(create_app(Service(classifier), Limits(max_rows=100, max_bytes=100_000))) as one:
        yield one


@pytest.fixture
def adding(classifier):
    with running(create_app(Service(classifier), allow_add=True)) as one:
        yield one


def expected(classifier, features, method, top):
    """Names and probabilities of the best classes, by the classifier itself."""
    probabilities = classifier.set_params(method=method).predict_proba(features)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names = [[classifier.class_names_[classifier.classes_[c]] for c in row] for row in order]
    return names, np.take_along_axis(probabilities, order, axis=1)


# Answers


@pytest.mark.parametrize("kind", ["json", "npy"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("top", [1, 3, 99])
def test_classify_answers_what_the_classifier_says(classifier, client, kind, method, top):
    body, headers = ({"features": IMAGES.tolist()}, JSON) if kind == "json" else (npy(IMAGES), NPY)
    answer = client.post(f"/classify?method={method}&top={top}", body, headers)
    assert answer.status == 200
    names, probabilities = expected(classifier, IMAGES, method, top)
    assert answer.content["method"] == method
    assert answer.content["classes"] == names
    np.testing.assert_allclose(answer.content["scores"], probabilities, atol=1e-12)


def test_defaults_are_the_classifiers_method_and_the_best_class(classifier):
    classifier.set_params(method="nearest")
    with running(create_app(Service(classifier))) as client:
        answer = client.post("/classify", {"features": IMAGES.tolist()})
    assert answer.content["method"] == "nearest"
    assert answer.content["classes"] == expected(classifier, IMAGES, "nearest", 1)[0]


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "u1", "i8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_kinds_of_npy_bodies(classifier, client, dtype, order, version):
    features = np.abs(IMAGES * 10).astype(dtype, order=order)
    answer = client.post("/classify?method=softmax", npy(features, version), NPY)
    names, probabilities = expected(classifier, features.astype(np.float32), "softmax", 1)
    assert answer.content["classes"] == names
    np.testing.assert_allclose(answer.content["scores"], probabilities, atol=1e-12)


def test_classes_and_health(classifier, client):
    answer = client.get("/classes")
    assert answer.status == 200
    assert answer.content["classes"] == [
        {"index": index, "name": name, "seen": index in SEEN} for index, name in enumerate(NAMES)
    ]
    health = client.get("/health").content
    assert health["status"] == "ok" and health["version"] == mf.__version__
    assert (health["features"], health["classes"]) == (FEATURES, NEW)


def test_the_interface_describes_itself(client):
    paths = client.get("/openapi.json").content["paths"]
    content = paths["/classify"]["post"]["requestBody"]["content"]
    assert set(content) == {JSON["content-type"], NPY["content-type"]}
    assert set(paths) == {"/classify", "/classes", "/health"}


# Faults


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
        ({"features": [ROW, [*ROW[1:], 1e300]]}, JSON, 422, "too large for float32 in row 1"),
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
        ("/classify?method=forest", 422, "method: Input should be 'softmax'"),
        ("/classify?top=0", 422, "top: Input should be greater than or equal to 1"),
        ("/classify?top=x", 422, "top: Input should be a valid integer"),
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
    request = "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
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
    request = "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
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
    request = "POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
    start = f"{request}content-length: {len(GOOD)}\r\n\r\n"
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


# Added classes


def test_a_class_added_by_its_descriptor_is_told_apart(classifier, adding):
    answer = adding.post("/classes", {"name": "new", "vector": VECTOR})
    assert (answer.status, answer.content) == (201, {"index": NEW, "name": "new"})
    assert adding.get("/classes").content["classes"][-1] == {
        "index": NEW,
        "name": "new",
        "seen": False,
    }
    images, _ = make_images(np.array([NEW]), rows=10, seed=3)
    grown = mf.MCFAClassifier(config("gzsl", epochs=3), calibration=0.1)
    grown.fit(*make_images(SEEN, rows=20), make_semantics()[:NEW], class_names=NAMES)
    grown.add_classes(["new"], make_semantics()[NEW:])
    for method in ("softmax", "nearest"):
        names, probabilities = expected(grown, images, method, 2)
        answer = adding.post(f"/classify?top=2&method={method}", {"features": images.tolist()})
        assert answer.content["classes"] == names
        np.testing.assert_allclose(answer.content["scores"], probabilities, atol=1e-12)
    assert classifier.class_names_ == NAMES


def test_a_class_added_by_sentences(classifier, tmp_path):
    save_sentence_model(tmp_path / "tiny", ATTRIBUTES)
    service = Service(classifier, encoder=SentenceEncoder(tmp_path / "tiny"))
    with running(create_app(service, allow_add=True)) as client:
        body = {"name": "new", "sentences": ["a loop", "line top"]}
        assert client.post("/classes", body).status == 201
        answer = client.post("/classes", {"name": "newer", "sentences": ["loop", "against"]})
        assert answer.status == 422 and "cancel out" in answer.content["detail"]
    added = service._snapshot.by_method["softmax"].heads_.semantics[-1]
    np.testing.assert_allclose(added, describe(["a loop", "line top"], ATTRIBUTES), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "a", "vector": VECTOR}, 409, "there is a class 'a' already"),
        ({"name": "new", "vector": VECTOR[1:]}, 422, "expected 6 values as in training, got [5]"),
        ({"name": "new", "vector": []}, 422, "expected 6 values"),
        ({"name": "new", "vector": [*VECTOR[1:], 1e300]}, 422, "too large for float32"),
        ({"name": "new", "vector": [*VECTOR[1:], np.nan]}, 422, "vector.5: Input should be a fin"),
        ({"name": "", "vector": VECTOR}, 422, "name: String should have at least 1"),
        ({"name": "x" * 201, "vector": VECTOR}, 422, "name: String should have at most 200"),
        ({"name": "new"}, 422, "expected either vector or sentences"),
        ({"name": "new", "vector": VECTOR, "sentences": ["a"]}, 422, "expected either"),
        ({"name": "new", "sentences": ["a"]}, 422, "this service has no encoder"),
        ({"vector": VECTOR}, 422, "name: Field required"),
        (b"{", 400, "Invalid JSON"),
    ],
)
def test_bad_classes_change_nothing(adding, body, status, message):
    answer = adding.post("/classes", body)
    assert answer.status == status and message in answer.content["detail"]
    assert adding.get("/health").content["classes"] == NEW


def test_there_is_a_most_of_classes(classifier):
    service = Service(classifier, max_classes=NEW + 1)
    with running(create_app(service, allow_add=True)) as client:
        assert client.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
        answer = client.post("/classes", {"name": "newer", "vector": VECTOR})
        assert answer.status == 409 and "13 classes, the most allowed" in answer.content["detail"]


def test_added_classes_are_kept_where_that_is_wanted(classifier, tmp_path):
    path = tmp_path / "classifier.pt"
    classifier.save(path)
    with running(create_app(Service(classifier, path=path), allow_add=True)) as client:
        assert client.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
    assert mf.MCFAClassifier.load(path).class_names_ == (*NAMES, "new")
    assert mf.MCFAClassifier.load(tmp_path / "classifier.previous.pt").class_names_ == NAMES


# Many at once


def test_requests_are_answered_while_a_class_is_added(classifier, adding):
    """By the classes from before or by those from after, never by a mixture."""
    before = expected(classifier, IMAGES, "softmax", 99)
    body = npy(IMAGES)
    answers, done = [], threading.Event()

    def ask():
        while not done.is_set():
            answers.append(adding.post("/classify?method=softmax&top=99", body, NPY))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            assert adding.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
        finally:
            done.set()
        for one in asking:
            one.result()
    after = adding.post("/classify?method=softmax&top=99", body, NPY).content
    assert len(after["classes"][0]) == NEW + 1
    assert len(answers) > 4
    for answer in answers:
        assert answer.status == 200
        if len(answer.content["classes"][0]) == NEW:
            assert answer.content["classes"] == before[0]
        else:
            assert answer.content["classes"] == after["classes"]
            assert answer.content["scores"] == after["scores"]


def test_a_class_is_added_once_however_many_add_it(adding):
    with ThreadPoolExecutor(5) as pool:
        bodies = [{"name": "new", "vector": VECTOR}] * 5
        answers = list(pool.map(lambda body: adding.post("/classes", body), bodies))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    assert adding.get("/health").content["classes"] == NEW + 1


def test_clients_at_once_get_their_own_answers(classifier, client):
    names, _ = expected(classifier, IMAGES, "softmax", 1)

    def ask(row):
        body = {"features": [IMAGES[row].tolist()]}
        return client.post("/classify?method=softmax", body).content["classes"][0]

    rows = list(range(len(IMAGES))) * 6
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, rows)) == [names[row] for row in rows]
