"""Options of losses, checked when a module is made."""

from __future__ import annotations

import math

__all__ = ["check_number", "check_positives", "check_reduction"]


def check_reduction(reduction: str) -> str:
    """The reduction, if it is one.

    Example:
        >>> check_reduction("mean")
        'mean'
    """
    return _check_choice("reduction", reduction, ("sum", "mean", "none"))


def check_positives(positives: str) -> str:
    """The form of the positives, if it is one."""
    return _check_choice("positives", positives, ("out", "in"))


def check_number(name: str, value: float) -> float:
    """The value, if it is a positive, finite number."""
    if isinstance(value, bool | str) or not isinstance(value, float | int):
        raise TypeError(f"expected `{name}` to be a number, but got {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"expected `{name}` to be positive and finite, but got {value}")
    return float(value)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        words = ", ".join(map(repr, choices[:-1]))
        raise ValueError(f"expected `{name}` to be {words} or {choices[-1]!r}, but got {value!r}")
    return value
