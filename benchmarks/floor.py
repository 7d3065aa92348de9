"""What the machine can do at most, measured, and the time that each job needs at that rate.

Three ceilings: the rate of a large float32 matrix product, the rate of ``torch.exp`` on chunks that
stay in each core's cache, and the bandwidth of a copy out of cache. They are sampled in the rounds
in which the contenders are timed, so that a slower moment of the machine slows both.

A job's floor is ``flops / matrix rate + exponentials / exponential rate`` (both run on the same
vector units, so they add up), or its memory traffic at the copy bandwidth where that is longer.

Flops and exponentials, for N instances, C classes and D dimensions:

====================  =============  =============  ============================================
job                   flops          exponentials   because
====================  =============  =============  ============================================
VtoV forward          N²·D           N²/2           each unordered pair once, 2·D flops
VtoV backward         3·N²·D         N²/2           similarities again (N²·D), each weight used
                                                    for both of its rows (2·N²·D)
VtoS, StoV or both,   2·N·C·D        N·C            one N×C product; a fixed shift lets row and
forward                                             column sums share its exponentials
the same, backward    6·N·C·D        N·C            similarities again, gradient of V, of S
====================  =============  =============  ============================================

So VtoV costs 4·N²·D flops and N² exponentials forward and backward, and the cross-modal losses add
8·N·C·D and 2·N·C (1.7% of the flops for N = 8192, C = 70).
"""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import torch
from shapes import Shape

from mcfa_fast.linear import linear as matrix_product

FLOAT = 4


class Rates(NamedTuple):
    """The machine's ceilings, each per second."""

    flops: float
    exponentials: float
    bytes: float
    onednn_flops: float = 0.0
    """The rate of the same product by oneDNN, where the library calls it; the floor does not use
    it, so that a job may come out above its floor."""


class Work(NamedTuple):
    """What a job cannot do without."""

    flops: float = 0.0
    exponentials: float = 0.0
    bytes: float = 0.0

    def plus(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def shared(self, number: int) -> Work:
        """The work of one of ``number`` processes that share it."""
        return Work(*(part / number for part in self))

    def seconds(self, rates: Rates) -> float:
        """The floor of the job's time."""
        arithmetic = self.flops / rates.flops + self.exponentials / rates.exponentials
        return max(arithmetic, self.bytes / rates.bytes)


def by_part(part: str, forward: Work, backward: Work) -> Work:
    """The work of ``part``: ``"forward"``, ``"backward"`` or ``"both"``."""
    return {"forward": forward, "backward": backward, "both": forward.plus(backward)}[part]


def vtov(shape: Shape, part: str = "both") -> Work:
    n, d, _ = shape
    return by_part(part, Work(n * n * d, n * n / 2), Work(3 * n * n * d, n * n / 2))


def cross(shape: Shape, part: str = "both") -> Work:
    """VtoS, StoV, or both of them in one pass."""
    n, d, c = shape
    return by_part(part, Work(2 * n * c * d, n * c), Work(6 * n * c * d, n * c))


def contrastive(loss: str, shape: Shape, part: str = "both") -> Work:
    """The work of ``"vtov"``, ``"vtos"``, ``"stov"`` or ``"fused"`` (all three)."""
    if loss == "vtov":
        return vtov(shape, part)
    if loss == "fused":
        return vtov(shape, part).plus(cross(shape, part))
    return cross(shape, part)


def pairs(loss: str, shape: Shape, part: str = "both") -> Work:
    """The work of ``"towers"`` or of a ``"bank"``, whose keys get no gradient."""
    n, d, m = shape
    products = 6 if loss == "towers" else 4
    return by_part(part, Work(2 * n * m * d, n * m), Work(products * n * m * d, n * m))


def alignment(shape: Shape, part: str = "both") -> Work:
    """Wasserstein and KL: read means and log-variances; again, and write their gradients.

    One exponential σ = exp(½·logvar) per element and direction serves both terms.
    """
    elements = shape.n * shape.d
    forward = Work(exponentials=elements, bytes=2 * elements * FLOAT)
    return by_part(part, forward, Work(exponentials=elements, bytes=4 * elements * FLOAT))


def reconstruction(shape: Shape, part: str = "both") -> Work:
    """Two L1 distances of the instances, of their own reconstructions and of their classes'.

    Read features and reconstructions, and the features; again, and write the reconstructions'
    gradient. The classes' rows stay in cache.
    """
    elements = shape.n * shape.d
    return by_part(part, Work(bytes=3 * elements * FLOAT), Work(bytes=4 * elements * FLOAT))


def sampling(shape: Shape, part: str = "both") -> Work:
    """Read means, log-variances and noise, write samples; the gradient of the log-variances.

    One exponential per element and direction.
    """
    elements = shape.n * shape.d
    work = Work(exponentials=elements, bytes=4 * elements * FLOAT)
    return by_part(part, work, work)


def nearest(shape: Shape) -> Work:
    """The product of queries and class latents."""
    return Work(flops=2 * shape.n * shape.c * shape.d)


def encoder(rows: int, features: int, hidden: int, latent: int) -> Work:
    """The two matrix products between features and latent means."""
    return Work(flops=2 * rows * (features * hidden + hidden * latent))


def linear(rows: int, inputs: int, outputs: int, *, first: bool = False) -> Work:
    """A linear layer's product forward and its two backward; the first layer's input needs none."""
    return Work(flops=(4 if first else 6) * rows * inputs * outputs)


def adam(weights: int) -> Work:
    """Adam with amsgrad: five values read and four written per weight."""
    return Work(bytes=9 * FLOAT * weights)


class Meter:
    """Samples the ceilings at the current number of threads; :meth:`rates` gives the medians.

    Args:
        size: Rows of the square matrices of the product.
        per_thread: Exponentials per thread and call: 64 Ki floats and their results fill half of
            a 1 MiB second-level cache.
        copied: Floats of the copy, more than the last-level cache holds.
    """

    def __init__(self, size: int = 1536, per_thread: int = 2**16, copied: int = 2**24) -> None:
        self._left, self._right = torch.randn(2, size, size)
        self._product = torch.empty(size, size)
        self._exponents = -torch.rand(per_thread * torch.get_num_threads())
        self._powers = torch.empty_like(self._exponents)
        self._source = torch.ones(copied)
        self._copy = torch.empty_like(self._source)
        self._samples: list[Rates] = []
        self._sample()  # Touches the memory and starts the threads.

    def sample(self) -> None:
        """Measures each ceiling once more."""
        self._samples.append(self._sample())

    def rates(self) -> Rates:
        """The medians of the samples."""
        return Rates(*(median(values) for values in zip(*self._samples, strict=True)))

    def _sample(self) -> Rates:
        matmul = _best(lambda: torch.mm(self._left, self._right, out=self._product), 2)
        onednn = _best(lambda: matrix_product(self._left, self._right), 2)
        exponential = _best(lambda: torch.exp(self._exponents, out=self._powers), 200)
        copy = _best(lambda: self._copy.copy_(self._source), 2)
        return Rates(
            2 * len(self._product) ** 3 / matmul,
            len(self._powers) / exponential,
            2 * FLOAT * len(self._copy) / copy,
            2 * len(self._product) ** 3 / onednn,
        )


def _best(call, times: int) -> float:
    """The shortest of ``times`` calls, in seconds: a ceiling is what can be reached."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
