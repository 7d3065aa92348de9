"""Checks of hyperparameters."""

from __future__ import annotations

__all__ = ["check_choice", "check_positive"]


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
