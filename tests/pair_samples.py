"""Sample inputs of the functions of anchors and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

import torch
from sampling import Sample, normal, temperature_of
from torch import Tensor, nn

from mcfa_fast import ops


class AnchorKey(nn.Module):
    """The sums over pairs, which have no module of their own, as one."""

    def __init__(
        self,
        temperature: Tensor,
        key_side: bool = False,
        positives: str = "out",
        normalize: bool = True,
    ):
        super().__init__()
        self.temperature = temperature
        self.key_side = key_side
        self.positives = positives
        self.normalize = normalize

    def forward(
        self,
        anchors: Tensor,
        keys: Optional[Tensor],
        anchor_labels: Optional[Tensor],
        key_labels: Optional[Tensor],
        self_index: Optional[Tensor],
    ) -> ops.AnchorKeySums:
        return ops.anchor_key(
            anchors,
            keys,
            anchor_labels,
            key_labels,
            self_index,
            self.temperature,
            self.key_side,
            self.positives,
            self.normalize,
        )


def pairs(
    anchors: int, keys: int | None, width: int, labelled: bool = True, ignored: float = 0.0
) -> tuple[Tensor | None, ...]:
    """Anchors and keys of three classes, some anchors among the keys; None: their own keys."""
    generator = torch.Generator().manual_seed(0)

    def labels(count: int) -> Tensor | None:
        values = torch.arange(count) % 3 - 1
        values[torch.rand(count, generator=generator) < ignored] = -100
        return values if labelled else None

    if keys is None:
        return (normal(generator, anchors, width), None, labels(anchors), None, None)
    return (
        normal(generator, anchors, width),
        normal(generator, keys, width),
        labels(anchors),
        labels(keys),
        torch.randint(-1, keys, (anchors,), generator=generator) if labelled else None,
    )


def pairs_small() -> Iterator[Sample]:
    for positives in ("out", "in"):
        options = {"temperature": temperature_of(0.5), "positives": positives}
        yield Sample(pairs(14, 9, 5), {**options, "key_side": True})
        yield Sample(pairs(14, None, 5), options)
    yield Sample(
        pairs(9, 14, 5, labelled=False), {"temperature": temperature_of(0.5)}, constant=(1,)
    )
    yield Sample(
        pairs(9, 14, 5), {"temperature": temperature_of(0.5), "normalize": False}, constant=(0,)
    )


def pairs_shapes() -> Iterator[Sample]:
    for anchors, keys, width, temperature, normalize in [
        (150, 90, 20, 0.5, True),
        (70, 200, 33, 0.02, True),
        (131, 80, 5, 2.0, False),
        (90, None, 20, 0.1, True),
        (3, 2, 1, 0.3, True),
        (1, 1, 4, 0.3, True),
        (0, 3, 4, 0.3, True),
        (3, 0, 4, 0.3, True),
        (5, 2, 0, 0.3, True),
    ]:
        for positives in ("out", "in"):
            options = {"temperature": temperature_of(temperature), "normalize": normalize}
            options = {**options, "positives": positives, "key_side": positives == "in"}
            yield Sample(pairs(anchors, keys, width, ignored=0.1), options)
    for labelled in (True, False):
        options = {"temperature": temperature_of(0.3), "key_side": True}
        yield Sample(pairs(40, 70, 20, labelled), options, constant=(1,))
        yield Sample(pairs(40, 70, 20, labelled), options, constant=(0,))
    options = {"temperature": temperature_of(0.1), "positives": "in", "key_side": True}
    for width in (64, 128, 256, 257):
        yield Sample(pairs(70, 90, width), options)
    yield Sample(pairs(90, None, 257), options)


def _views(count: int, width: int, negatives: int | None = None) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = (count, count) if negatives is None else (count, count, negatives)
    return tuple(normal(generator, size, width) for size in sizes)


def views_small() -> Iterator[Sample]:
    for reduction in ("mean", "none"):
        options = {"temperature": temperature_of(0.5), "reduction": reduction}
        yield Sample(_views(14, 5), options)


def views_shapes() -> Iterator[Sample]:
    for count, width, temperature in [(70, 20, 0.5), (33, 5, 0.02), (1, 3, 0.3)]:
        yield Sample(_views(count, width), {"temperature": temperature_of(temperature)})


def towers_small() -> Iterator[Sample]:
    yield Sample(_views(14, 5), {"temperature": temperature_of(0.5)})
    yield Sample(_views(14, 5), {"temperature": temperature_of(0.5), "normalize": False})


def queue_small() -> Iterator[Sample]:
    yield from views_small()
    for normalize in (True, False):
        options = {"temperature": temperature_of(0.5), "normalize": normalize}
        yield Sample(_views(9, 5, 14), options)
    yield Sample(_views(9, 5, 14), {"temperature": temperature_of(0.5)}, constant=(2,))


def queue_shapes() -> Iterator[Sample]:
    yield from views_shapes()
    yield Sample(_views(40, 20, 90), {"temperature": temperature_of(0.1)}, constant=(2,))
