"""What the library has to reach on two cores in float32, each as a ratio within one run."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import peers
import shapes
from shapes import Shape

Kind = Literal["fraction of the floor", "times faster", "bytes"]


class Target(NamedTuple):
    """A figure to reach: at least ``reach``, for bytes at most."""

    title: str
    where: dict[str, Any]
    """The fields of the record that is judged."""
    kind: Kind
    reach: float
    against: str | None = None
    """The contender to be faster than."""

    def reached(self, records: list[dict[str, Any]]) -> float | None:
        """The measured figure, or None where it was not measured."""
        for record in records:
            if any(record.get(field) != value for field, value in self.where.items()):
                continue
            library = record["seconds"].get(peers.LIBRARY)
            if library is None or (self.against and self.against not in record["seconds"]):
                continue
            if self.kind == "bytes":
                return record["peak_bytes"][peers.LIBRARY]
            if self.kind == "times faster":
                return record["seconds"][self.against] / library
            return record["floor"] / library
        return None

    def is_met(self, figure: float) -> bool:
        return figure <= self.reach if self.kind == "bytes" else figure >= self.reach

    def text(self, figure: float) -> str:
        """``figure`` as it is read."""
        if self.kind == "bytes":
            return f"{figure / 2**20:,.0f} MiB"
        if self.kind == "times faster":
            return f"{figure:.1f}×"
        return f"{figure:.2f}"


def _fused(shape: Shape, job: str = "contrastive") -> dict[str, Any]:
    same = {"loss": "fused", "positives": "out", "part": "both", "threads": shapes.THREADS[-1]}
    return {"job": job, **shape._asdict(), **same}


def _losses(shape: Shape) -> str:
    return f"three losses, forward+backward, N = {shape.n:,}, D = {shape.d}, C = {shape.c}"


_LARGEST = shapes.SCALING[-1]
_ALIGNMENT = shapes.ALIGNMENT[-1]

TARGETS = (
    Target(_losses(shapes.LARGE), _fused(shapes.LARGE), "fraction of the floor", 0.75),
    *(
        Target(_losses(shapes.LARGE), _fused(shapes.LARGE), "times faster", ratio, name)
        for name, ratio in (
            (peers.PLAIN, 15.0),
            (peers.METRIC_LEARNING, 25.0),
            (peers.AUTHORS, 45.0),
            (peers.COMPILED, 3.0),
        )
    ),
    Target(_losses(shapes.WIDE), _fused(shapes.WIDE), "fraction of the floor", 0.88),
    *(
        Target(_losses(shape), _fused(shape), "times faster", ratio, peers.PLAIN)
        for shape, ratio in (
            (shapes.MIDDLE, 8.0),
            (shapes.EPISODE, 5.0),
            (shapes.LONG_EPISODE, 5.0),
        )
    ),
    Target(
        f"Wasserstein + KL, forward+backward, {_ALIGNMENT.n:,} × {_ALIGNMENT.d}",
        {
            "job": "alignment",
            **_ALIGNMENT._asdict(),
            "part": "both",
            "threads": shapes.THREADS[-1],
        },
        "times faster",
        4.0,
        peers.PLAIN,
    ),
    Target(_losses(_LARGEST), _fused(_LARGEST, "scaling"), "fraction of the floor", 0.75),
    Target(_losses(_LARGEST), _fused(_LARGEST, "scaling"), "bytes", 2**30),
)
