"""How much a client may ask for, so that no request can exhaust the server."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Limits"]


class Limits(BaseModel):
    """Bounds of a service.

    A request of JSON takes up to some twenty times its bytes while it is read, one of .npy twice;
    `workers` of them are read at once, and the bodies of `pending` are held.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(8 * 2**20, ge=1, description="Bytes of a request's body.")
    max_rows: int = Field(10_000, ge=1, description="Rows of features in a request.")
    max_results: int = Field(100_000, ge=1, description="Classes in an answer, over all rows.")
    max_classes: int = Field(1_000, ge=1, description="Classes, after which none can be added.")
    pending: int = Field(32, ge=1, description="Requests at once; more are answered 503.")
    workers: int = Field(2, ge=1, description="Requests that are computed at once.")
    connections: int = Field(
        512,
        ge=1,
        description="Connections at once; for one more, the one that has waited longest for "
        "its client is closed.",
    )
    header_bytes: int = Field(16 * 2**10, ge=256, description="Bytes of a request's headers.")
    header_seconds: float = Field(
        10.0, gt=0, description="Time in which a connection has to send the headers of a request."
    )
    body_seconds: float = Field(30.0, gt=0, description="Time in which a body has to arrive.")
    answer_seconds: float = Field(
        60.0, gt=0, description="Time in which a client has to take in an answer."
    )
