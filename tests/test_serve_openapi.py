"""What the HTTP service says of itself, held against what it does."""

import json
import re
from urllib.parse import urlencode

import pytest
from http_service import JSON, NPY, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_schema import problems, values
from sentence_model import save_sentence_model
from served_classifier import solved
from zero_shot_data import ATTRIBUTES

from mcfa_fast.encoders.sentences import SentenceEncoder
from mcfa_fast.serving import Limits, Service, create_app

pytestmark = pytest.mark.usefixtures("one_thread")

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def client(one_thread, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    save_sentence_model(folder, ATTRIBUTES)
    service = Service(solved(), encoder=SentenceEncoder(folder), max_classes=20)
    with running(create_app(service, Limits(max_rows=3), allow_add=True)) as one:
        yield one


@pytest.fixture(scope="module")
def interface(client):
    return client.get("/openapi.json").content


def test_it_names_every_path_and_body(interface):
    assert set(interface["paths"]) == {"/classify", "/classes", "/health"}
    content = interface["paths"]["/classify"]["post"]["requestBody"]["content"]
    assert set(content) == {JSON["content-type"], NPY["content-type"]}


def check(interface, method, path, answer):
    """The status is one that the interface names, and the content is of its schema."""
    responses = interface["paths"][path][method]["responses"]
    assert str(answer.status) in responses, answer
    schema = responses[str(answer.status)]["content"][JSON["content-type"]]["schema"]
    assert problems(answer.content, schema, interface) == []


@pytest.mark.parametrize("path", ["/classes", "/health"])
def test_what_is_read(client, interface, path):
    answer = client.get(path)
    assert answer.status == 200
    check(interface, "get", path, answer)


def body_schema(interface, path):
    return interface["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "head": st.sampled_from(["scores", "nearest", "", "Scores"]),
        "top": st.one_of(
            st.integers(-2, 40).map(str), st.sampled_from(["1.0", "1e1", "+1", " 1", "1_0", "x"])
        ),
    },
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@FUZZ
@given(data=st.data(), parameters=PARAMETERS)
def test_generated_requests_to_classify(client, interface, data, parameters):
    schema = body_schema(interface, "/classify")
    body = data.draw(st.one_of(values(schema), JSON_VALUES))
    answer = client.post(f"/classify?{urlencode(parameters)}", body)
    check(interface, "post", "/classify", answer)
    good = parameters.get("head", "scores") == "scores"
    good &= re.fullmatch(r"[1-9]\d*", parameters.get("top", "1")) is not None
    good &= problems(body, schema, interface) == []
    assert (answer.status == 200) == good, answer


@FUZZ
@given(data=st.data())
def test_generated_classes(client, interface, data):
    schema = body_schema(interface, "/classes")
    body = data.draw(st.one_of(values(schema), JSON_VALUES))
    answer = client.post("/classes", body)
    check(interface, "post", "/classes", answer)
    if problems(body, schema, interface):
        assert answer.status == 422, answer
    else:  # or not of the kind of the others, or taken, or one too many
        is_far = "expected one on the same scale" in str(answer.content)
        assert answer.status in (201, 409) or is_far, answer


@FUZZ
@given(
    body=st.binary(max_size=40),
    kind=st.sampled_from(["application/json", "application/octet-stream", "text/plain", "", "a"]),
    path=st.sampled_from(["/classify", "/classes"]),
    host=st.sampled_from(["localhost", "127.0.0.1:80", "[::1]:80", "a.b.c", "::"]),
)
def test_bodies_and_headers_of_any_kind(client, interface, body, kind, path, host):
    answer = client.post(path, body, {"content-type": kind, "host": host})
    check(interface, "post", path, answer)
    if host == "a.b.c":
        assert answer.status == 421


def test_descriptions_are_json(client, interface):
    assert json.loads(json.dumps(interface)) == interface
