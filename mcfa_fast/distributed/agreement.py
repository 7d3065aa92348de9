"""What ranks tell each other before a loss, so that they fail together and in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Union

import torch
from torch import Tensor

from mcfa_fast.distributed.ranks import Members, RankError

Value = Union[str, int, float, bool, None]

_BYTES = 2048  # of which the longest call takes half
_CAUSE = "failed"


def agree(
    members: Members,
    operation: str,
    device: torch.device,
    same: Callable[[], dict[str, Value]],
    own: Mapping[str, Value],
) -> list[dict[str, Any]]:
    """Exchanges what the call on this rank is like.

    Args:
        members: The ranks.
        operation: The beginning of error messages.
        device: Where the group's collectives take their tensors.
        same: Checks the arguments and gives what has to be the same on every rank, by the name
            that an error uses for it.
        own: What may differ, such as numbers of rows.

    Returns:
        ``own`` of every rank.

    Raises:
        ValueError: If the ranks do not agree; on each of them.
        RankError: If the check has raised an error on another rank, whose words it repeats. The
            rank itself raises that error.
    """
    failure = None
    told: dict[str, Any]
    try:
        told = {"same": same(), "own": own}
    except Exception as error:
        failure = error
        words = f"{type(error).__name__}: {error}".encode("ascii", "replace").decode()
        told = {_CAUSE: words[:300]}
    everyone = [
        json.loads(bytes(entry.tolist()))
        for entry in members.all_gather(f"{operation}, agreement", _encoded(told).to(device))
    ]
    if failure is not None:
        raise failure
    for rank, entry in enumerate(everyone):
        if _CAUSE in entry:
            raise RankError(f"{operation}: rank {rank} has failed: {entry[_CAUSE]}")
    first = everyone[0]["same"]
    for rank, entry in enumerate(everyone):
        names = [
            name for name in first | entry["same"] if first.get(name) != entry["same"].get(name)
        ]
        if names:
            name = names[0]
            raise ValueError(
                f"{operation}: expected {name} to be the same on every rank of `group`, but got "
                f"{first.get(name)} on rank 0 and {entry['same'].get(name)} on rank {rank}"
            )
    return [entry["own"] for entry in everyone]


def _encoded(told: dict[str, Any]) -> Tensor:
    text = json.dumps(told).encode()
    return torch.frombuffer(bytearray(text.ljust(_BYTES)), dtype=torch.uint8)
