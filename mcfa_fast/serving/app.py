"""The HTTP interface: routes, limits and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from mcfa_fast.classifiers.heads_old import Method
from mcfa_fast.serving.bodies import (
    JSON,
    NPY,
    NewClass,
    features_reader,
    media_type,
    parse_json,
    read_body,
)
from mcfa_fast.serving.limits import Limits
from mcfa_fast.serving.service import Service

__all__ = ["create_app"]


def create_app(
    service: Service, limits: Limits | None = None, *, allow_add: bool = False
) -> FastAPI:
    """An ASGI application that answers

    - ``POST /classify?method=...&top=...``: features as ``{"features": [[...], ...]}`` or as the
      bytes of a .npy file (``application/octet-stream``);
    - ``GET /classes``, ``GET /health``;
    - ``POST /classes``, with `allow_add`: ``{"name": ..., "vector": [...]}`` or, if the service has
      an encoder, ``{"name": ..., "sentences": [...]}``.

    Faults are answered with a 4xx status and ``{"detail": "what is wrong"}``.

    Args:
        service: what classifies.
        limits: bounds of requests.
        allow_add: let clients add classes, for all clients.
    """
    limits = limits or Limits()
    app = FastAPI(title="mcfa_fast", version=version("mcfa_fast"))
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
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    def answer(body: bytes, kind: str, method: Method | None, top: int) -> bytes:
        features = read_features(body, kind)
        results = len(features) * min(top, len(service.classes()))
        if results > limits.max_results:
            detail = f"top: expected at most {limits.max_results} classes over all rows"
            raise HTTPException(413, f"{detail}, got {results}")
        return json.dumps(service.classify(features, method, top)).encode()

    @app.post("/classify", openapi_extra=_classify_body(service.features))
    async def classify(
        request: Request, method: Method | None = None, top: int = Query(1, ge=1)
    ) -> Response:
        kind = media_type(request, JSON, NPY)
        with admitted():
            body = await read_body(request, limits)
            content = await compute(answer, body, kind, method, top, limiter=workers)
        return Response(content, media_type=JSON)

    @app.get("/classes")
    def classes() -> dict[str, Any]:
        return {"classes": service.classes()}

    def add(body: bytes) -> dict[str, Any]:
        new = parse_json(NewClass, body)
        if (new.vector is None) == (new.sentences is None):
            raise HTTPException(422, "body: expected either vector or sentences")
        sentences = new.sentences is not None
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
        return {"index": index, "name": new.name}

    @app.post("/classes", status_code=201, openapi_extra=_body({JSON: _schema(NewClass)}))
    async def add_class(request: Request) -> dict[str, Any]:
        if not allow_add:
            raise HTTPException(403, "this service does not take in classes (see --allow-add)")
        media_type(request, JSON)
        with admitted():
            body = await read_body(request, limits)
            return await compute(add, body, limiter=adding)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "version": version("mcfa_fast"),
            "method": service.default_method,
            "features": service.features,
            "classes": len(service.classes()),
        }

    return app


def _schema(model: Any) -> dict[str, Any]:
    return {"schema": model.model_json_schema()}


def _classify_body(width: int) -> dict[str, Any]:
    row = {"type": "array", "items": {"type": "number"}, "minItems": width, "maxItems": width}
    features = {"type": "array", "items": row, "minItems": 1}
    schema = {"type": "object", "properties": {"features": features}, "required": ["features"]}
    npy = {"schema": {"type": "string", "format": "binary"}}
    return _body({JSON: {"schema": schema}, NPY: npy})


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
