"""What a preset of a system says, for a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["Preset", "PresetOf", "Task", "check_task"]

Task = Literal["zsl", "gzsl"]
"""Test among unseen classes only (zsl), or among all classes (gzsl)."""


@dataclass(frozen=True)
class Preset:
    """Options that differ from the defaults.

    Attributes:
        options: of the system, those of its training included.
        heads: of the heads over it, by the head's name.
        selection: of the choice inside the seen classes.
        head: which head answers; None is the system's default.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None


PresetOf = Callable[[Task], Preset]
"""The preset for a task."""


def check_task(task: Any) -> None:
    """Raise a ValueError unless it is a task."""
    if task not in get_args(Task):
        raise ValueError(f"task: expected 'zsl' or 'gzsl', got {task!r}")
