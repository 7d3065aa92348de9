"""Reading request bodies that may hold anything: every fault is an answer, none an exception."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

import anyio
import numpy as np
from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from starlette.requests import ClientDisconnect

from mcfa_fast.export.update import CONTROL_CHARACTERS
from mcfa_fast.serving.limits import Limits

__all__ = [
    "JSON",
    "LARGEST",
    "NPY",
    "NewClass",
    "features_reader",
    "media_type",
    "parse_json",
    "read_body",
]

JSON = "application/json"
NPY = "application/octet-stream"

LARGEST = float(np.finfo(np.float32).max)
"""Numbers are at most this, and at least its negative."""

_HEADER_ENTRY = re.compile(
    r"'(descr|fortran_order|shape)': ('[^']{0,40}'|True|False|\([\d, ]{0,60}\))"
)
_REAL = re.compile(r"'([<>]f[248]|[<>][iu][248]|\|[iu]1)'")
_STRICT = ConfigDict(strict=True, extra="forbid")
_Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
_MOST_DESCRIPTOR = 65536


class NewClass(BaseModel):
    """The body of POST /classes: a name, and either a descriptor or sentences."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=200)
    vector: list[_Number] = Field([], max_length=_MOST_DESCRIPTOR, fail_fast=True)
    sentences: list[Annotated[str, Field(pattern=r"\S", max_length=2000)]] = Field(
        [], min_length=1, max_length=100
    )

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if CONTROL_CHARACTERS.search(name):
            raise ValueError("expected no control characters")
        return name

    @staticmethod
    def schema(  # type: ignore[override]
        width: int, *, sentences: bool
    ) -> dict[str, Any]:
        """As JSON Schema, for descriptors of `width` values.

        Args:
            width: values of a descriptor A.
            sentences: whether sentences are accepted, too.
        """
        number = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
        vector = {"type": "array", "items": number, "minItems": width, "maxItems": width}
        text = {"type": "string", "pattern": r"\S", "maxLength": 2000}
        texts = {"type": "array", "items": text, "minItems": 1, "maxItems": 100}
        name = {
            "type": "string",
            "minLength": 1,
            "maxLength": 200,
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$",
        }
        described = {"vector": vector, "sentences": texts} if sentences else {"vector": vector}
        return {
            "type": "object",
            "properties": {"name": name, **described},
            "required": ["name"],
            "oneOf": [{"required": [key]} for key in described],
            "additionalProperties": False,
        }


def media_type(request: Request, *allowed: str) -> str:
    """The type of the body, if it is one of those allowed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in allowed:
        raise HTTPException(415, f"content-type: expected {' or '.join(allowed)}, got {kind!r}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"content-encoding: expected none, got {encoding!r}")
    return kind


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body; stops at the limit whatever length the client claims."""
    # The rest of the body is not read, so the connection cannot go on.
    refused = {"headers": {"connection": "close"}}
    too_large = HTTPException(413, f"body: expected at most {limits.max_bytes} bytes", **refused)
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed[:20]) > limits.max_bytes:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.max_bytes:
                    raise too_large
    except TimeoutError:
        seconds = limits.body_seconds
        raise HTTPException(408, f"body: not all here after {seconds:g} s", **refused) from None
    except ClientDisconnect:
        raise HTTPException(400, "body: the client left") from None
    return bytes(body)


def parse_json(model: type[BaseModel], body: bytes) -> Any:
    """The body as an object of this model."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        status = {"json_invalid": 400, "too_long": 413}.get(first["type"], 422)
        if status == 413 and where != "features":
            status = 422  # a row that is too wide is wrong, not too much
        raise HTTPException(status, f"{where}: {first['msg']}") from None


def features_reader(width: int, limits: Limits) -> Any:
    """A function from body and type to float rows [N, width], N in 1..max_rows."""
    row = Annotated[list[_Number], Field(min_length=width, max_length=width, fail_fast=True)]
    rows = Annotated[list[row], Field(min_length=1, max_length=limits.max_rows, fail_fast=True)]
    model = create_model("Features", __config__=_STRICT, features=(rows, ...))

    def read(body: bytes, kind: str) -> np.ndarray:
        if kind == NPY:
            return _npy(body, width, limits.max_rows)
        return np.array(parse_json(model, body).features, dtype=np.float32)

    return read


def _npy(body: bytes, width: int, max_rows: int) -> np.ndarray:
    """Rows of a .npy file; nothing is allocated, or evaluated, that its header asks for."""
    size_bytes = {b"\x01\x00": 2, b"\x02\x00": 4}.get(body[6:8])
    if body[:6] != b"\x93NUMPY" or size_bytes is None:
        raise HTTPException(400, "body: not a .npy file of version 1.0 or 2.0")
    start = 8 + size_bytes
    end = start + int.from_bytes(body[8:start], "little")
    # numpy's own reader parses the header as Python, which nonsense can make slow or break.
    header = dict(_HEADER_ENTRY.findall(body[start : min(end, start + 1000)].decode("latin-1")))
    if header.keys() != {"descr", "fortran_order", "shape"}:
        raise HTTPException(400, "body: the .npy file has no header of a plain array")
    if not _REAL.fullmatch(header["descr"]):
        raise HTTPException(422, f"features: expected real numbers, got dtype {header['descr']}")
    shape = tuple(int(size) for size in re.findall(r"\d+", header["shape"]))
    if len(shape) != 2 or shape[0] < 1 or shape[1] != width:
        raise HTTPException(422, f"features: expected shape [N, {width}], got {header['shape']}")
    if shape[0] > max_rows:
        raise HTTPException(413, f"features: expected at most {max_rows} rows, got {shape[0]}")
    dtype = np.dtype(header["descr"].strip("'"))
    data = memoryview(body)[end:]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise HTTPException(400, "body: the .npy file is not as long as its header says")
    order: Literal["F", "C"] = "F" if header["fortran_order"] == "True" else "C"
    with np.errstate(over="ignore"):
        return _finite(np.frombuffer(data, dtype).reshape(shape, order=order).astype(np.float32))


def _finite(features: np.ndarray) -> np.ndarray:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        raise HTTPException(422, f"features: NaN, infinite or too large for float32 in row {row}")
    return features
