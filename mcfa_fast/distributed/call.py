"""What every loss over ranks begins with: arguments that are right, and the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mcfa_fast.distributed.agreement import Value, agree
from mcfa_fast.distributed.ranks import Members

if TYPE_CHECKING:
    from mcfa_fast.distributed.ranks import Given


class Call(NamedTuple):
    """A loss that the ranks have agreed on."""

    members: Members
    rows: dict[str, list[int]]
    """By name of an argument, its number of rows on each rank."""
    device: torch.device


def begin(
    given: Given,
    loss: str,
    rows: Mapping[str, Tensor | None],
    replicated: Mapping[str, Tensor | None],
    temperature: float | Tensor,
    options: Mapping[str, Value],
    check: Callable[[], None],
) -> Call:
    """Compares a call with those of the other ranks.

    Args:
        given: What the caller gave as ``group``.
        loss: Its name, the beginning of error messages.
        rows: By name, the arguments of which each rank has rows of its own.
        replicated: By name, those that are the same on every rank.
        temperature: Of the loss.
        options: Other options, by name.
        check: Raises what is wrong with the arguments of this rank.

    Raises:
        RankError: Another rank has failed, has ended, or has not answered in time.
        ValueError: The ranks do not agree.
    """
    members = Members(given)
    device = next(tensor.device for tensor in rows.values() if tensor is not None)
    on_cpu_alone = dist.get_backend(members.group) == "gloo"

    def same() -> dict[str, Value]:
        if on_cpu_alone and device.type != "cpu":
            raise ValueError(
                f"expected rows on the CPU for a `group` of backend gloo, but got {device}; "
                "nccl is the backend for GPUs"
            )
        check()
        tau = as_tensor(temperature)
        told: dict[str, Value] = {
            "the loss": loss,
            "`temperature`": repr(float(tau.detach())),
            "whether `temperature` requires a gradient": _differentiated(tau),
        }
        for name, tensor in {**rows, **replicated}.items():
            if tensor is None:
                told[f"whether there is `{name}`"] = False
                continue
            told[f"the number of columns of `{name}`"] = tensor.shape[1]
            told[f"the dtype of `{name}`"] = str(tensor.dtype)
            told[f"whether `{name}` requires a gradient"] = _differentiated(tensor)
            if name in replicated:
                told[f"the number of rows of `{name}`"] = len(tensor)
        ranks = members.options
        return {
            **told,
            **{f"`{name}`": value for name, value in options.items()},
            "`gradients`": ranks.gradients,
            "`exchange`": ranks.exchange,
            "`wire_dtype`": str(ranks.wire_dtype),
        }

    own = {name: _count(tensor) for name, tensor in rows.items()}
    every = agree(members, loss, torch.device("cpu") if on_cpu_alone else device, same, own)
    return Call(members, {name: [entry[name] for entry in every] for name in rows}, device)


def as_tensor(temperature: float | Tensor) -> Tensor:
    """A temperature as the operator takes it."""
    if isinstance(temperature, Tensor):
        return temperature
    return torch.tensor(temperature, dtype=torch.float64)


def check_call(
    function: Callable[..., Any],
    tensors: tuple[Tensor | None, ...],
    temperature: float | Tensor,
    *options: Any,
) -> None:
    """Raises what the operator itself says of these arguments, at the cost of no rows.

    Args:
        function: Of the tensors, the temperature and the options.
        tensors: Those of the call, the first dimension of each of which may become 0.
        temperature: Of the call.
        options: Of the call.
    """
    with torch.no_grad():
        # Shapes; then all that tensors without data do not show.
        function(*(None if each is None else each.to("meta") for each in tensors), 1.0, *options)
        empty = (None if each is None else each[:0] for each in tensors)
        function(*empty, temperature, *options)


def _differentiated(tensor: Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


def _count(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.dim() == 0 else len(tensor)
