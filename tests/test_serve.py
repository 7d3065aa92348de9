"""The HTTP service on a real server: answers, added classes, many clients at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from http_service import JSON, NPY, npy, running
from sentence_model import describe, save_sentence_model
from served_classifier import IMAGES, NAMES, VECTOR, solved, trained
from zero_shot_data import ATTRIBUTES, FEATURES, NEW, SEEN, make_images, make_semantics

import mcfa_fast as mf
from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.serving import Limits, Service, create_app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def classifier(one_thread):
    return trained()


@pytest.fixture(scope="module")
def client(classifier):
    with running(create_app(Service(classifier), Limits(max_rows=100, max_bytes=100_000))) as one:
        yield one


@pytest.fixture
def adding(classifier):
    with running(create_app(Service(classifier), allow_add=True)) as one:
        yield one


def expected(classifier, features, head, top):
    """Names and probabilities of the best classes, by the classifier itself."""
    view = classifier.with_head(head)
    if head != classifier.head_.name:
        view.set_params(calibration=None)  # the one given is in units of other scores
    probabilities = view.predict_proba(features)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names = [[classifier.class_names_[classifier.classes_[c]] for c in row] for row in order]
    return names, np.take_along_axis(probabilities, order, axis=1)


# Answers


@pytest.mark.parametrize("kind", ["json", "npy"])
@pytest.mark.parametrize("head", ["softmax", "nearest", "ensemble"])
@pytest.mark.parametrize("top", [1, 3, 99])
def test_classify_answers_what_the_classifier_says(classifier, client, kind, head, top):
    body, headers = ({"features": IMAGES.tolist()}, JSON) if kind == "json" else (npy(IMAGES), NPY)
    answer = client.post(f"/classify?head={head}&top={top}", body, headers)
    assert answer.status == 200
    names, probabilities = expected(classifier, IMAGES, head, top)
    assert answer.content["head"] == head
    assert answer.content["classes"] == names
    np.testing.assert_allclose(answer.content["scores"], probabilities, atol=1e-12)


def test_defaults_are_the_classifiers_head_and_the_best_class(classifier):
    nearest = classifier.with_head("nearest")
    with running(create_app(Service(nearest))) as client:
        answer = client.post("/classify", {"features": IMAGES.tolist()})
    assert answer.content["head"] == "nearest"
    assert answer.content["classes"] == expected(nearest, IMAGES, "nearest", 1)[0]


def test_any_system_is_served():
    classifier = solved()
    with running(create_app(Service(classifier), allow_add=True)) as client:
        health = client.get("/health").content
        assert (health["system"], health["heads"]) == ("eszsl", ["scores"])
        answer = client.post("/classify", {"features": IMAGES.tolist()}).content
        assert answer["classes"] == expected(classifier, IMAGES, "scores", 1)[0]
        assert client.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
        answer = client.post("/classify?top=99", {"features": IMAGES.tolist()}).content
        assert len(answer["classes"][0]) == NEW + 1


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "u1", "i8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_kinds_of_npy_bodies(classifier, client, dtype, order, version):
    features = np.abs(IMAGES * 10).astype(dtype, order=order)
    answer = client.post("/classify?head=softmax", npy(features, version), NPY)
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
    assert (health["system"], health["head"]) == ("mcfa", "softmax")
    assert health["heads"] == ["softmax", "nearest", "ensemble"]
    assert (health["features"], health["classes"]) == (FEATURES, NEW)


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
    grown = trained().add_classes(["new"], make_semantics()[NEW:])
    for head in ("softmax", "nearest"):
        names, probabilities = expected(grown, images, head, 2)
        answer = adding.post(f"/classify?top=2&head={head}", {"features": images.tolist()})
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
    added = service._snapshot.classifier.table_.semantics[-1]
    np.testing.assert_allclose(added, describe(["a loop", "line top"], ATTRIBUTES), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "a", "vector": VECTOR}, 409, "there is a class 'a' already"),
        ({"name": "new", "vector": VECTOR[1:]}, 422, "expected 6 values as in training, got [5]"),
        ({"name": "new", "vector": []}, 422, "expected 6 values"),
        ({"name": "new", "vector": [*VECTOR[1:], 1e300]}, 422, "vector.5: Input should be less"),
        ({"name": "new", "vector": [*VECTOR[1:], 1e30]}, 422, "as large as those of training"),
        ({"name": "new", "vector": [*VECTOR[1:], np.nan]}, 422, "vector.5: Input should be a fin"),
        ({"name": "", "vector": VECTOR}, 422, "name: String should have at least 1"),
        ({"name": "x" * 201, "vector": VECTOR}, 422, "name: String should have at most 200"),
        ({"name": "a\x1b[31m", "vector": VECTOR}, 422, "expected no control characters"),
        ({"name": "a\nb", "vector": VECTOR}, 422, "expected no control characters"),
        (b'{"name": "\\ud800", "vector": []}', 400, "Invalid JSON"),
        ({"name": "new", "vector": None, "sentences": None}, 422, "Input should be a valid array"),
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
    """With the head and the calibration that were saved, whatever the service answers with."""
    path = tmp_path / "classifier.pt"
    classifier.save(path)
    view = classifier.with_head("nearest").set_params(calibration=0.3)
    with running(create_app(Service(view, path=path), allow_add=True)) as client:
        assert client.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
    saved = mf.ZeroShotClassifier.load(path)
    assert saved.class_names_ == (*NAMES, "new")
    assert (saved.head_.name, saved.calibration) == ("softmax", 0.1)
    assert mf.ZeroShotClassifier.load(tmp_path / "classifier.previous.pt").class_names_ == NAMES


def test_classes_that_others_saved_in_the_meantime_are_not_lost(classifier, tmp_path):
    path = tmp_path / "classifier.pt"
    trained().add_classes(["other"], make_semantics()[NEW:]).save(path)
    before = path.read_bytes()
    with running(create_app(Service(classifier, path=path), allow_add=True)) as client:
        answer = client.post("/classes", {"name": "new", "vector": VECTOR})
        assert answer.status == 409 and "was given other classes" in answer.content["detail"]
        assert client.get("/health").content["classes"] == NEW
    assert path.read_bytes() == before


# Many at once


def test_requests_are_answered_while_a_class_is_added(classifier, adding):
    """By the classes from before or by those from after, never by a mixture."""
    before = expected(classifier, IMAGES, "softmax", 99)
    body = npy(IMAGES)
    answers, done = [], threading.Event()

    def ask():
        while not done.is_set():
            answers.append(adding.post("/classify?head=softmax&top=99", body, NPY))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            assert adding.post("/classes", {"name": "new", "vector": VECTOR}).status == 201
        finally:
            done.set()
        for one in asking:
            one.result()
    after = adding.post("/classify?head=softmax&top=99", body, NPY).content
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
        return client.post("/classify?head=softmax", body).content["classes"][0]

    rows = list(range(len(IMAGES))) * 6
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, rows)) == [names[row] for row in rows]
