"""What the operators' own checks are not asked: arguments that are no tensors."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_temperature", "check_tensors"]


def check_tensors(**given: object) -> None:
    """Raises a TypeError that names the first argument that is no tensor.

    Example:
        >>> check_tensors(visual=[[1.0, 0.0]])
        Traceback (most recent call last):
        TypeError: expected `visual` to be a torch.Tensor, but got list
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise TypeError(f"expected `{name}` to be a torch.Tensor, but got {kind}")


def check_temperature(temperature: object) -> None:
    """Raises a TypeError for what cannot be a number; numbers themselves are left to operators."""
    if temperature is None or isinstance(temperature, str | list | tuple):
        raise TypeError(
            "expected `temperature` to be a number or a torch.Tensor, "
            f"but got {type(temperature).__name__}"
        )
