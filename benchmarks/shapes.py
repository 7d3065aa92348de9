"""The one grid of shapes that the benchmarks run on, and the batches of those shapes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

THREADS = (1, 2)
TEMPERATURE = 0.1


class Shape(NamedTuple):
    """N instances of C classes with D latent dimensions."""

    n: int
    d: int
    c: int

    def __str__(self) -> str:
        return f"{self.n}x{self.d}x{self.c}"


class Files(NamedTuple):
    """N rows of F features in a file, and C classes."""

    n: int
    f: int
    c: int

    def __str__(self) -> str:
        return f"{self.n}x{self.f}x{self.c}"


class ContrastiveBatch(NamedTuple):
    visual: Tensor
    """[N, D]"""
    semantic: Tensor
    """[C, D]"""
    labels: Tensor
    """[N]"""


class PairBatch(NamedTuple):
    """Anchors and keys; the first keys are copies of the anchors where there are labels."""

    anchors: Tensor
    """[N, D]"""
    keys: Tensor
    """[C, D]"""
    labels: Tensor | None
    """[N]"""
    key_labels: Tensor | None
    """[C]"""


class AlignmentBatch(NamedTuple):
    mean_a: Tensor
    """[N, D]"""
    logvar_a: Tensor
    """[N, D]"""
    mean_b: Tensor
    """[C, D]"""
    logvar_b: Tensor
    """[C, D]"""
    labels: Tensor
    """[N]"""


class ReconstructionBatch(NamedTuple):
    decoded: Tensor
    """[N, D] from the instances' own latents"""
    table: Tensor
    """[C, D] from the classes' latents"""
    features: Tensor
    """[N, D]"""
    labels: Tensor
    """[N]"""


class SamplingBatch(NamedTuple):
    mean: Tensor
    """[N, D]"""
    logvar: Tensor
    """[N, D]"""
    noise: Tensor
    """[N, D]"""


# The paper's episodes (c·k = 5·5 and 5·10), a mid-size batch, and batches only fused losses like.
EPISODE = Shape(25, 64, 5)
LONG_EPISODE = Shape(50, 64, 5)
MIDDLE = Shape(1000, 64, 70)
LARGE = Shape(8192, 64, 70)
WIDE = Shape(8192, 512, 70)
# The batch of several ranks.
GLOBAL = Shape(16384, 64, 70)
# Two instances of every class, as in losses over two views of each image.
PAIRS = Shape(4096, 64, 2048)

# Of anchors and keys, C being the keys: images and texts, and batches with a memory of past ones.
TOWERS = Shape(8192, 512, 8192)
BANK = Shape(4096, 64, 262144)
BANK_PEERS = Shape(1024, 64, 32768)

ALIGNMENT = (Shape(1024, 64, 70), Shape(65536, 64, 70))
# D: the features that are reconstructed.
RECONSTRUCTION = (Shape(25, 512, 5), Shape(1024, 512, 70), Shape(16384, 512, 70))
SAMPLING = (Shape(25, 64, 5), *ALIGNMENT)
INFERENCE = (Shape(1024, 64, 70), Shape(65536, 64, 70), Shape(65536, 64, 1000))

NEAREST = (1, 5)
# A query at a time, or few.
SET = Shape(100_000, 512, 100)  # N images of C classes with D features, classified together
INFERENCE_FEW = (Shape(1, 64, 70), Shape(64, 64, 1000))
FILES = Files(1_000_000, 512, 70)

# Contenders that form N×N matrices run up to here.
LARGEST_QUADRATIC = 8192

SCALING = tuple(Shape(2**k, 64, 70) for k in range(8, 18))
SCALING_PEERS = tuple(Shape(n, 64, 70) for n in (1024, 4096, 8192, 16384))

TINY = Shape(48, 16, 6)
TINY_FILES = Files(600, 16, 6)
TINY_PAIRS = Shape(32, 16, 16)
TINY_TOWERS = Shape(48, 16, 48)
TINY_BANK = Shape(24, 16, 96)
TINY_SCALING = tuple(Shape(n, 16, 6) for n in (256, 1024))


def contrastive_batch(shape: Shape) -> ContrastiveBatch:
    """Normal latents; the classes take turns, so that sizes differ by one at most."""
    generator = torch.Generator().manual_seed(0)
    return ContrastiveBatch(
        torch.randn(shape.n, shape.d, generator=generator).requires_grad_(),
        torch.randn(shape.c, shape.d, generator=generator).requires_grad_(),
        torch.arange(shape.n) % shape.c,
    )


def tower_batch(shape: Shape) -> PairBatch:
    """Normal embeddings of images and texts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape.n, shape.d, generator=generator).requires_grad_()
    texts = torch.randn(shape.c, shape.d, generator=generator).requires_grad_()
    return PairBatch(images, texts, None, None)


def bank_batch(shape: Shape) -> PairBatch:
    """Normal latents of 70 classes, and a memory without a gradient that they have entered."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(shape.c, shape.d, generator=generator)
    labels = torch.arange(shape.c) % 70
    anchors = bank[: shape.n].clone().requires_grad_()
    return PairBatch(anchors, bank, labels[: shape.n].clone(), labels)


def alignment_batch(shape: Shape) -> AlignmentBatch:
    """Means and log-variances drawn from normal distributions."""
    generator = torch.Generator().manual_seed(0)
    latents = [
        torch.randn(rows, shape.d, generator=generator).requires_grad_()
        for rows in (shape.n, shape.n, shape.c, shape.c)
    ]
    return AlignmentBatch(*latents, torch.arange(shape.n) % shape.c)


def reconstruction_batch(shape: Shape) -> ReconstructionBatch:
    """Features and their reconstructions drawn from normal distributions."""
    generator = torch.Generator().manual_seed(0)
    decoded, table, features = (
        torch.randn(rows, shape.d, generator=generator) for rows in (shape.n, shape.c, shape.n)
    )
    labels = torch.arange(shape.n) % shape.c
    return ReconstructionBatch(decoded.requires_grad_(), table.requires_grad_(), features, labels)


def sampling_batch(shape: Shape) -> SamplingBatch:
    """Means, log-variances and noise drawn from normal distributions."""
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = torch.randn(3, shape.n, shape.d, generator=generator)
    return SamplingBatch(mean.requires_grad_(), logvar.requires_grad_(), noise)


def in_double(batch):
    """The same batch in float64, with its own leaves."""
    return type(batch)(
        *(
            tensor.detach().double().requires_grad_(tensor.requires_grad)
            if tensor is not None and tensor.is_floating_point()
            else tensor
            for tensor in batch
        )
    )


def leaves(batch) -> list[Tensor]:
    """The tensors of ``batch`` that gradients are taken of."""
    return [tensor for tensor in batch if tensor is not None and tensor.requires_grad]
