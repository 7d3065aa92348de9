"""What the library has to reach on two cores in float32, each as a ratio within one run."""

from __future__ import annotations

from typing import Any, NamedTuple

import peers
import shapes
from shapes import Shape

FLOOR = "fraction of the floor"
FASTER = "times faster"
MEMORY = "memory above the inputs"
SECONDS = "seconds"


class Target(NamedTuple):
    """A figure to reach: at least ``reach``, of memory and seconds at most that many."""

    title: str
    where: dict[str, Any]
    """The fields of the record that is judged."""
    kind: str
    reach: float
    against: str | None = None
    """The contender to be faster than."""

    def record(self, records: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The record that is judged, or None where not all of it was measured."""
        contenders = {peers.LIBRARY, self.against or peers.LIBRARY}
        for record in records:
            same = all(record.get(field) == value for field, value in self.where.items())
            if same and contenders <= record["seconds"].keys():
                return record
        return None

    def figure(self, record: dict[str, Any]) -> float:
        """What ``record`` says."""
        if self.kind == MEMORY:
            return record["peak_bytes"][peers.LIBRARY]
        library = record["seconds"][peers.LIBRARY]
        if self.kind == SECONDS:
            return library
        if self.kind == FASTER:
            return record["seconds"][self.against] / library
        return record["floor"] / library

    @property
    def at_most(self) -> bool:
        """Whether ``reach`` is an upper bound."""
        return self.kind in (MEMORY, SECONDS)

    def is_met(self, figure: float) -> bool:
        return figure <= self.reach if self.at_most else figure >= self.reach

    def text(self, figure: float) -> str:
        """``figure`` as it is read."""
        if self.kind == MEMORY:
            return f"{figure / 2**20:,.0f} MiB"
        if self.kind == SECONDS:
            return f"{figure:.1f} s"
        if self.kind == FASTER:
            return f"{figure:.1f}×"
        return f"{figure:.2f}"


def _fused(shape: Shape, job: str = "contrastive") -> dict[str, Any]:
    same = {"loss": "fused", "positives": "out", "part": "both", "threads": shapes.THREADS[-1]}
    return {"job": job, **shape._asdict(), **same}


def _losses(shape: Shape) -> str:
    return f"three losses, forward+backward, N = {shape.n:,}, D = {shape.d}, C = {shape.c}"


def _training(n: int, preset: str = "paper") -> dict[str, Any]:
    return {"job": "training", "n": n, "preset": preset, "threads": shapes.THREADS[-1]}


def _step(n: int) -> str:
    return f"training step, batch of {n:,}"


_LARGEST = shapes.SCALING[-1]
_ALIGNMENT = shapes.ALIGNMENT[-1]

TARGETS = (
    Target(_losses(shapes.LARGE), _fused(shapes.LARGE), FLOOR, 0.75),
    *(
        Target(_losses(shapes.LARGE), _fused(shapes.LARGE), FASTER, ratio, name)
        for name, ratio in (
            (peers.PLAIN, 15.0),
            (peers.METRIC_LEARNING, 25.0),
            (peers.AUTHORS, 45.0),
            (peers.COMPILED, 3.0),
        )
    ),
    Target(_losses(shapes.WIDE), _fused(shapes.WIDE), FLOOR, 0.88),
    *(
        Target(_losses(shape), _fused(shape), FASTER, ratio, peers.PLAIN)
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
        FASTER,
        4.0,
        peers.PLAIN,
    ),
    Target(
        f"classification of a file of {shapes.FILES.n:,} × {shapes.FILES.f}, {shapes.FILES.c} "
        "classes",
        {
            "job": "classification",
            "n": shapes.FILES.n,
            "head": "softmax",
            "dtype": "float32",
            "threads": shapes.THREADS[-1],
        },
        FLOOR,
        0.70,
    ),
    *(
        Target(
            f"nearest of {shape.c:,} classes, {shape.n:,} × {shape.d}, top {k}",
            {
                "job": "inference",
                **shape._asdict(),
                "k": k,
                "threads": shapes.THREADS[-1],
            },
            FASTER,
            1.0,
            peers.PLAIN,
        )
        for shape in shapes.INFERENCE
        for k in shapes.NEAREST
    ),
    *(
        Target(
            f"{_losses(shapes.GLOBAL)}, two ranks of one thread, {exchange}",
            {"job": "distributed", **shapes.GLOBAL._asdict(), "exchange": exchange},
            FASTER,
            1.8,
            peers.ONE_PROCESS,
        )
        for exchange in ("gather", "ring")
    ),
    *(
        Target(
            f"{shapes.SET.n:,} images × {shapes.SET.d}, {shapes.SET.c} classes, together",
            {"job": "transduction", **shapes.SET._asdict(), "threads": shapes.THREADS[-1]},
            kind,
            reach,
        )
        for kind, reach in ((SECONDS, 60.0), (MEMORY, 2**30))
    ),
    Target(_losses(_LARGEST), _fused(_LARGEST, "scaling"), FLOOR, 0.75),
    Target(_losses(_LARGEST), _fused(_LARGEST, "scaling"), MEMORY, 2**30),
    *(
        target
        for n in (25, 50)
        for target in (
            Target(_step(n), _training(n), FASTER, 3.0, peers.PLAIN),
            Target(_step(n), _training(n, "reference"), FASTER, 6.0, peers.AUTHORS),
        )
    ),
    Target(_step(4096), _training(4096), FASTER, 4.0, peers.PLAIN),
)
