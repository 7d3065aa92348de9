"""Checks of hyperparameters."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["check_choice", "check_number", "check_positive"]


def check_positive(**values: float) -> None:
    """Raise a ValueError that names the first value which is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value!r}")


def check_choice(choices: tuple[str, ...], **values: str) -> None:
    """Raise a ValueError that names the first value which is not one of `choices`."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name}: expected one of {choices}, got {value!r}")


def check_number(name: str, value: Any, *, whole: bool = False, zero: bool = False) -> None:
    """Raise a ValueError unless `value` is a finite number above 0 (or 0, with `zero`)."""
    kind = Integral if whole else Real
    valid = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not (valid and (value > 0 or (zero and value == 0))):
        expected = "an integer" if whole else "a finite number"
        bound = "0 or more" if zero else "above 0"
        raise ValueError(f"{name}: expected {expected} {bound}, got {value!r}")
