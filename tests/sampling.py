"""What a sample of a function's inputs is, and how its results are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Sample(NamedTuple):
    """Arguments of a function: tensors by position, options by keyword.

    Floating tensors get a gradient, except for those at the positions `constant`; so does a
    temperature among the options that is a tensor.
    """

    tensors: tuple[Tensor | None, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 (never written to)
    constant: tuple[int, ...] = ()

    def to(self, *args) -> Sample:
        """With the floating tensors in a dtype, or all of them on a device."""
        floating = isinstance(args[0], torch.dtype)

        def moved(value):
            if isinstance(value, Tensor) and (value.is_floating_point() or not floating):
                return value.detach().to(*args)
            return value

        options = {name: moved(value) for name, value in self.options.items()}
        return self._replace(tensors=tuple(map(moved, self.tensors)), options=options)

    def leaves(self) -> Sample:
        """Copies that require a gradient where they are to have one."""
        tensors = tuple(
            tensor.detach().clone().requires_grad_()
            if isinstance(tensor, Tensor)
            and tensor.is_floating_point()
            and place not in self.constant
            else tensor
            for place, tensor in enumerate(self.tensors)
        )
        options = {
            name: value.detach().clone().requires_grad_() if isinstance(value, Tensor) else value
            for name, value in self.options.items()
        }
        return self._replace(tensors=tensors, options=options)

    def wanted(self) -> list[Tensor]:
        """The tensors that require a gradient."""
        every = (*self.tensors, *self.options.values())
        return [value for value in every if isinstance(value, Tensor) and value.requires_grad]


def weighted_sum(outputs: tuple[Tensor, ...]) -> Tensor:
    """A sum of all finite entries of all outputs in which no two count alike."""
    total = torch.zeros((), dtype=torch.float64, device=outputs[0].device)
    for factor, output in zip((1.0, 0.7, -0.3, 0.4, -0.6, 0.5), outputs, strict=False):
        if not output.is_floating_point():  # a count
            continue
        output = output.where(output.isfinite(), 0)  # the logarithm of an empty sum is not
        weights = torch.linspace(0.5, 2.0, output.numel(), dtype=output.dtype, device=output.device)
        weights = torch.ones_like(output) if output.dim() == 0 else weights.reshape(output.shape)
        total = total + factor * (output * weights).sum()
    return total


def values_and_gradients(
    function: Callable, sample: Sample, parameters: Iterable[Tensor] = ()
) -> list[Tensor]:
    """The outputs of ``function(*tensors, **options)`` and the gradients of their weighted sum.

    Gradients of the sample's own tensors come first, then those of a module's `parameters`.
    """
    leaves = sample.leaves()
    outputs = function(*leaves.tensors, **leaves.options)
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    wanted = [*leaves.wanted(), *parameters]
    return [*outputs, *torch.autograd.grad(weighted_sum(outputs), wanted)]


def largest_error(ours: list[Tensor], oracle: list[Tensor]) -> float:
    """The largest error of any result, relative to the largest entry of that result."""
    worst = 0.0
    for got, want in zip(ours, oracle, strict=True):
        if want.numel() > 0:
            size = want.where(want.isfinite(), 0).abs().max().item()
            # Gradients may cancel to nothing, as those of normalised numbers do.
            size = size if size > 1e-9 else 1.0
            difference = (got.double() - want).where(got.double() != want, 0)  # infinities
            error = difference.abs().max().item() / size
            worst = max(worst, error if error == error else float("inf"))  # NaN is no result
    return worst


class Function(NamedTuple):
    """A function of mcfa_fast.functional."""

    name: str
    # module(**options)(*tensors) is the function.
    module: Callable[..., nn.Module]
    small: Callable[[], Iterator[Sample]]
    shapes: Callable[[], Iterator[Sample]]
    # What rounding may cost, relative to the largest entry.
    tolerance: Callable[[torch.dtype, dict[str, Any]], float]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def temperature_of(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
