"""The HTTP interface: routes, limits and answers."""

# Annotations of routes name types that are made for a service, so that they are not texts here.

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator

from mcfa_fast.serving.bodies import (
    JSON,
    LARGEST,
    NPY,
    NewClass,
    features_reader,
    media_type,
    parse_json,
    read_body,
)
from mcfa_fast.serving.hosts import HostCheck
from mcfa_fast.serving.limits import Limits
from mcfa_fast.serving.service import Service

__all__ = ["create_app"]


class _Fault(BaseModel):
    detail: str


class _Answer(BaseModel):
    head: str
    classes: list[list[str]]
    scores: list[list[float]]


class _Class(BaseModel):
    index: int
    name: str
    seen: bool


class _Classes(BaseModel):
    classes: list[_Class]


class _Added(BaseModel):
    index: int
    name: str


class _Health(BaseModel):
    status: Literal["ok"]
    version: str
    system: str
    head: str
    heads: list[str]
    features: int
    classes: int


def create_app(
    service: Service,
    limits: Limits | None = None,
    *,
    allow_add: bool = False,
    allowed_hosts: Iterable[str] = (),
) -> FastAPI:
    """An ASGI application that answers

    - ``POST /classify?head=...&top=...``: features as ``{"features": [[...], ...]}`` or as the
      bytes of a .npy file (``application/octet-stream``);
    - ``GET /classes``, ``GET /health``;
    - ``POST /classes``, with `allow_add`: ``{"name": ..., "vector": [...]}`` or, if the service has
      an encoder, ``{"name": ..., "sentences": [...]}``.

    Faults are answered with a 4xx status and ``{"detail": "what is wrong"}``.

    Args:
        service: what classifies.
        limits: bounds of requests.
        allow_add: let clients add classes, for all clients.
        allowed_hosts: names that clients may call the service by, besides ``localhost`` and
            addresses in numbers; ``"*"`` is any.
    """
    limits = limits or Limits()
    app = FastAPI(title="mcfa_fast", version=version("mcfa_fast"), responses=_faults(421))
    app.add_middleware(HostCheck, names=tuple(allowed_hosts))
    read_features = features_reader(service.features, limits)
    workers = anyio.CapacityLimiter(limits.workers)
    adding = anyio.CapacityLimiter(1)
    pending = 0

    @contextmanager
    def admitted() -> Iterator[None]:
        nonlocal pending  # only the event loop's thread comes here
        if pending >= limits.pending:
            headers = {"connection": "close", "retry-after": "1"}
            raise HTTPException(503, "too many requests at once", headers=headers)
        pending += 1
        try:
            yield
        finally:
            pending -= 1

    async def compute(function: Callable[..., Any], *arguments: Any, limiter: Any) -> Any:
        return await to_thread.run_sync(function, *arguments, limiter=limiter)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][1]}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def own_fault(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the service failed; its log says more"}, 500)

    def answer(body: bytes, kind: str, head: str | None, top: int) -> bytes:
        features = read_features(body, kind)
        results = len(features) * min(top, len(service.classes()))
        if results > limits.max_results:
            detail = f"top: expected at most {limits.max_results} classes over all rows"
            raise HTTPException(413, f"{detail}, got {results}")
        try:
            return json.dumps(service.classify(features, head, top)).encode()
        except ValueError as error:
            raise HTTPException(422, f"features: {error}") from None

    @app.post(
        "/classify",
        response_model=_Answer,
        responses=_faults(400, 408, 413, 415, 422, 503),
        openapi_extra=_classify_body(service.features, limits.max_rows),
    )
    async def classify(
        request: Request,
        head: Annotated[
            Literal[service.heads] | None,  # type: ignore[name-defined]
            Query(),
        ] = None,
        top: Annotated[int, BeforeValidator(_whole_number), Query(ge=1)] = 1,
    ) -> Response:
        kind = media_type(request, JSON, NPY)
        with admitted():
            body = await read_body(request, limits)
            content = await compute(answer, body, kind, head, top, limiter=workers)
        return Response(content, media_type=JSON)

    @app.get("/classes")
    def classes() -> _Classes:
        return _Classes.model_validate({"classes": service.classes()})

    def add(body: bytes) -> _Added:
        new = parse_json(NewClass, body)
        given = new.model_fields_set & {"vector", "sentences"}
        if len(given) != 1:
            raise HTTPException(422, "body: expected either vector or sentences")
        sentences = "sentences" in given
        if sentences and service.encoder is None:
            raise HTTPException(422, "sentences: this service has no encoder; send a vector")
        try:
            index = service.add_class(
                new.name, new.sentences if sentences else new.vector, sentences=sentences
            )
        except FileExistsError as error:
            raise HTTPException(409, str(error)) from None
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return _Added(index=index, name=new.name)

    new_class = NewClass.schema(service.semantic_features, sentences=service.encoder is not None)

    @app.post(
        "/classes",
        status_code=201,
        responses=_faults(400, 403, 408, 409, 413, 415, 422, 503),
        openapi_extra=_body({JSON: {"schema": new_class}}),
    )
    async def add_class(request: Request) -> _Added:
        if not allow_add:
            raise HTTPException(403, "this service does not take in classes (see --allow-add)")
        media_type(request, JSON)
        with admitted():
            body = await read_body(request, limits)
            return await compute(add, body, limiter=adding)

    @app.get("/health")
    def health() -> _Health:
        return _Health(
            status="ok",
            version=version("mcfa_fast"),
            system=service.system,
            head=service.default_head,
            heads=list(service.heads),
            features=service.features,
            classes=len(service.classes()),
        )

    return app


_MEANINGS = {
    400: "The body is no JSON, or no .npy file",
    403: "The service does not take in classes",
    408: "The body did not arrive in time",
    409: "There is such a class, or too many",
    413: "The body or the answer is too large",
    415: "The body is of another type",
    421: "The service does not answer to that name",
    422: "The body or a parameter is wrong",
    503: "There are too many requests",
}


def _faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": _Fault, "description": _MEANINGS[status]} for status in statuses
    }


def _whole_number(text: Any) -> Any:
    """Digits alone, where Python would read more."""
    if isinstance(text, str) and not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError("Input should be a valid integer of at most 18 digits")
    return text


def _classify_body(width: int, rows: int) -> dict[str, Any]:
    number = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
    row = {"type": "array", "items": number, "minItems": width, "maxItems": width}
    schema = {
        "type": "object",
        "properties": {
            "features": {"type": "array", "items": row, "minItems": 1, "maxItems": rows}
        },
        "required": ["features"],
        "additionalProperties": False,
    }
    npy = {"schema": {"type": "string", "format": "binary"}}
    return _body({JSON: {"schema": schema}, NPY: npy})


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
