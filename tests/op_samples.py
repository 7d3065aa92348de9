"""Sample inputs of every operator: the one table that all kinds of tests draw from.

opcheck, gradcheck, TorchScript, torch.compile, torch.export and autocast take the small samples;
the kernels in the harness, on a GPU and under compute-sanitizer the shapes that between them reach
every kernel. An entry describes a function of mcfa_fast.functional, whose twin in
mcfa_fast.reference is the oracle; a new operator adds an entry, and a test notices if it does not.
Needs PyTorch and the losses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pair_samples import (
    AnchorKey,
    pairs_shapes,
    pairs_small,
    queue_shapes,
    queue_small,
    towers_small,
    views_shapes,
    views_small,
)
from sampling import (
    Function,
    Sample,
    largest_error,
    normal,
    temperature_of,
    values_and_gradients,
    weighted_sum,
)
from torch import Tensor, nn

from mcfa_fast import losses, ops

__all__ = [
    "FUNCTIONS",
    "AnchorKey",
    "Function",
    "Sample",
    "batch",
    "case_ids",
    "cases",
    "gaussians",
    "largest_error",
    "table_rows",
    "values_and_gradients",
    "weighted_sum",
]


def batch(
    instances: int,
    classes: int,
    width: int,
    ignored: float = 0.1,
    seed: int = 0,
    skew: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of instances and of classes, and labels of which a part is ignored."""
    generator = torch.Generator().manual_seed(seed)
    visual = normal(generator, instances, width)
    semantic = normal(generator, classes, width)
    labels = (torch.rand(instances, generator=generator) ** skew * classes).long()
    labels[torch.rand(instances, generator=generator) < ignored] = -100
    return visual, semantic, labels


def _contrastive_small() -> Iterator[Sample]:
    data = batch(14, 3, 5)
    for positives in ("out", "in"):
        for reduction in ("mean", "none"):
            options = {"positives": positives, "reduction": reduction}
            yield Sample(data, {"temperature": temperature_of(0.5), **options})
    yield Sample(data, {"temperature": temperature_of(0.5), "normalize": False})


def _contrastive_shapes() -> Iterator[Sample]:
    for instances, classes, width, temperature, reduction, normalize in [
        (150, 9, 20, 0.5, "sum", True),
        (70, 5, 33, 0.02, "mean", True),  # beyond the known maximum: running maxima
        (131, 80, 5, 2.0, "none", False),
        (3, 2, 1, 0.3, "none", True),
        (1, 1, 4, 0.3, "mean", True),
        (0, 3, 4, 0.3, "sum", True),
        (5, 2, 0, 0.3, "sum", True),
    ]:
        for positives in ("out", "in"):
            options = {"positives": positives, "reduction": reduction, "normalize": normalize}
            yield Sample(
                batch(instances, classes, width),
                {"temperature": temperature_of(temperature), **options},
            )
    for width in (64, 65, 128, 200, 256, 257, 300):
        options = {"positives": "in", "reduction": "mean"}
        yield Sample(batch(90, 7, width), {"temperature": temperature_of(0.1), **options})


def _contrastive_tolerance(dtype: torch.dtype, options: dict[str, Any]) -> float:
    # Similarities of size 1 / temperature magnify what rounding the inputs costs.
    return {
        torch.float64: 1e-12,
        torch.float32: 2e-6,
        torch.bfloat16: 1.2e-2,
        torch.float16: 2e-3,
    }[dtype] * max(1.0, 0.2 / float(options["temperature"]))


def _vtov(samples: Callable[[], Iterator[Sample]]) -> Callable[[], Iterator[Sample]]:
    return lambda: (sample._replace(tensors=sample.tensors[::2]) for sample in samples())


def _without_positives(samples: Callable[[], Iterator[Sample]]) -> Callable[[], Iterator[Sample]]:
    def without() -> Iterator[Sample]:
        for sample in samples():
            options = dict(sample.options)
            if options.pop("positives", "out") == "out":
                yield sample._replace(options=options)

    return without


def _first(count: int, samples: Callable[[], Iterator[Sample]]) -> Callable[[], Iterator[Sample]]:
    return lambda: (sample for _, sample in zip(range(count), samples(), strict=False))


def gaussians(instances: int, classes: int, width: int, labelled: bool = True) -> Sample:
    """Gaussians of instances and of classes; half of the labels are one class, a distance is 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (instances,), generator=generator) if labelled else None
    if labels is not None:
        labels[: instances // 2] = 0
    others = classes if labelled else instances
    rows = [normal(generator, size, width) for size in (instances, instances, others, others)]
    rows[0][:1], rows[1][:1] = rows[2][:1], rows[3][:1]
    return Sample((*rows, labels))


def _wasserstein_small() -> Iterator[Sample]:
    for labelled in (True, False):
        for reduction in ("mean", "none"):
            yield gaussians(14, 3, 5, labelled)._replace(options={"reduction": reduction})


def _wasserstein_shapes() -> Iterator[Sample]:
    for labelled in (True, False):
        for instances, classes, width, reduction in [
            (300, 5, 8, "sum"),
            (70, 30, 33, "mean"),
            (5, 2, 1, "none"),
            (0, 2, 4, "mean"),
            (3, 2, 0, "sum"),
        ]:
            yield gaussians(instances, classes, width, labelled)._replace(
                options={"reduction": reduction}
            )


def _pointwise_tolerance(dtype: torch.dtype, options: dict[str, Any]) -> float:
    return {torch.float64: 1e-13, torch.float32: 2e-6}.get(dtype, 2 * torch.finfo(dtype).eps)


def _kl(rows: int, width: int, reduction: str) -> Sample:
    generator = torch.Generator().manual_seed(0)
    tensors = (normal(generator, rows, width), normal(generator, rows, width))
    return Sample(tensors, {"reduction": reduction})


def _kl_small() -> Iterator[Sample]:
    yield _kl(14, 5, "mean")
    yield _kl(14, 5, "none")


def _kl_shapes() -> Iterator[Sample]:
    for shape in [(300, 8, "sum"), (70, 33, "mean"), (5, 1, "none"), (0, 4, "sum"), (3, 0, "mean")]:
        yield _kl(*shape)


def table_rows(instances: int, classes: int, width: int, labelled: bool = True) -> Sample:
    """Rows and a table: half of them of one class, one class absent, a distance of 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (instances,), generator=generator)
    labels[: instances // 2] = classes // 2
    labels[labels == 0] = classes - 1
    rows, table = normal(generator, instances, width), normal(generator, classes, width)
    if not labelled:
        table, labels = table[labels], None
    rows[:1] = table[:1] if labels is None else table[labels[:1]]
    return Sample((rows, table, labels))


def _l1_small() -> Iterator[Sample]:
    for labelled in (True, False):
        for reduction in ("mean", "none"):
            # No two entries meet, for differences across the kink at 0 are no derivative.
            rows, table, labels = table_rows(14, 3, 5, labelled).tensors
            yield Sample((rows + 0.01, table, labels), {"reduction": reduction})
    for constant in (0, 1):
        yield table_rows(14, 3, 5)._replace(constant=(constant,))


def _l1_shapes() -> Iterator[Sample]:
    for labelled in (True, False):
        for instances, classes, width, reduction in [
            (700, 4, 8, "sum"),  # more chunks of a class than a block has warps
            (200, 40, 48, "none"),
            (70, 30, 33, "mean"),
            (33, 2, 1, "none"),
            (1, 1, 3, "sum"),
            (0, 2, 4, "mean"),
            (3, 2, 0, "sum"),
        ]:
            sample = table_rows(instances, classes, width, labelled)
            for constant in ((), (0,), (1,)):
                yield sample._replace(options={"reduction": reduction}, constant=constant)


class Sampler(nn.Module):
    """The sampling, which has no module of its own, as one."""

    def __init__(self, power: float = 0.5):
        super().__init__()
        self.power = power

    def forward(self, mean: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
        return ops.reparameterize(mean, logvar, noise, self.power)


def _sampling(rows: int, width: int, columns: int, power: float) -> Sample:
    generator = torch.Generator().manual_seed(0)
    tensors = [normal(generator, rows, size) for size in (width, width, columns)]
    return Sample(tuple(tensors), {"power": power}, constant=(2,))


def _sampling_small() -> Iterator[Sample]:
    yield _sampling(14, 5, 5, 0.5)
    yield _sampling(14, 5, 1, 1.0)
    for constant in (0, 1):
        yield _sampling(14, 5, 5, 1.0)._replace(constant=(constant, 2))


def _sampling_shapes() -> Iterator[Sample]:
    for rows, width, power in [
        (300, 8, 0.5), (70, 33, 1.0), (40, 16, 1.0), (5, 1, 0.5), (0, 4, 0.5), (3, 0, 0.5),
    ]:  # fmt: skip
        for columns in (width, 1):
            yield _sampling(rows, width, columns, power)


FUNCTIONS = (
    Function(
        "contrastive_losses",
        losses.ContrastiveLosses,
        _contrastive_small,
        _contrastive_shapes,
        _contrastive_tolerance,
    ),
    Function(
        "vtov_loss",
        losses.VtoVLoss,
        _vtov(_contrastive_small),
        _first(2, _vtov(_contrastive_shapes)),
        _contrastive_tolerance,
    ),
    Function(
        "vtos_loss",
        losses.VtoSLoss,
        _without_positives(_contrastive_small),
        _first(2, _without_positives(_contrastive_shapes)),
        _contrastive_tolerance,
    ),
    Function(
        "stov_loss",
        losses.StoVLoss,
        _contrastive_small,
        _first(4, _contrastive_shapes),
        _contrastive_tolerance,
    ),
    Function("anchor_key", AnchorKey, pairs_small, pairs_shapes, _contrastive_tolerance),
    Function(
        "info_nce_loss", losses.InfoNCELoss, queue_small, queue_shapes, _contrastive_tolerance
    ),
    Function("clip_loss", losses.CLIPLoss, towers_small, views_shapes, _contrastive_tolerance),
    Function("nt_xent_loss", losses.NTXentLoss, views_small, views_shapes, _contrastive_tolerance),
    Function(
        "wasserstein_alignment",
        losses.WassersteinAlignment,
        _wasserstein_small,
        _wasserstein_shapes,
        _pointwise_tolerance,
    ),
    Function("kl_divergence", losses.KLDivergence, _kl_small, _kl_shapes, _pointwise_tolerance),
    Function(
        "l1_reconstruction",
        losses.L1Reconstruction,
        _l1_small,
        _l1_shapes,
        _pointwise_tolerance,
    ),
    Function("reparameterize", Sampler, _sampling_small, _sampling_shapes, _pointwise_tolerance),
)


def cases(samples: str) -> list[tuple[Function, Sample]]:
    """Every function with each of its ``"small"`` samples or ``"shapes"``."""
    return [(function, sample) for function in FUNCTIONS for sample in getattr(function, samples)()]


def case_ids(pairs: list[tuple[Function, Sample]]) -> list[str]:
    def described(value):
        return value.item() if isinstance(value, Tensor) else value

    return [
        "-".join(
            [
                function.name,
                "x".join(map(str, sample.tensors[0].shape)),
                *(str(described(value)) for value in sample.options.values()),
                *(f"constant{place}" for place in sample.constant),
                *(() if sample.tensors[-1] is not None else ("unlabelled",)),
            ]
        )
        for function, sample in pairs
    ]
