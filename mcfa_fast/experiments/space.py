"""What a sweep may vary: ranges and choices of values for the options of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.heads import HEADS
from mcfa_fast.training.config import TrainingConfig

__all__ = [
    "Choice",
    "Range",
    "Space",
    "grid",
    "parse_choice",
    "parse_range",
    "resolve_space",
    "searchable",
]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low, high: bounds.
        log: whether equal ratios count the same, instead of equal differences.
        step: distance of neighbouring values, from `low` on; None is 1 for whole numbers, and any
            value for others.

    Raises:
        ValueError: unless ``low < high``, the step is positive, and `log` has neither a step nor a
            low of 0 or less.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"expected LOW < HIGH, got {self.low}:{self.high}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(
                f"step: expected more than 0 and at most {self.high - self.low}, got {self.step}"
            )
        if self.log and self.step is not None:
            raise ValueError("expected either log or a step, got both")
        if self.log and self.low <= 0:
            raise ValueError(f"log: expected LOW > 0, got {self.low}")

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int)

    @cached_property
    def values(self) -> tuple[float, ...] | None:
        """All values, ascending; None when there is no step.

        Example:
            >>> Range(0.1, 0.45, step=0.1).values, Range(3, 5).values, Range(0.0, 1.0).values
            ((0.1, 0.2, 0.3, 0.4), (3, 4, 5), None)
        """
        if self.step is None and not self.whole:
            return None
        # In decimals, so that 0.1 + 2 · 0.1 is what a user means by it.
        low, high, step = (Decimal(str(x)) for x in (self.low, self.high, self.step or 1))
        number = int((high - low) // step) + 1
        return tuple(type(self.low)(low + k * step) for k in range(number))

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high if self.values is None else value in self.values


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order.

    Raises:
        ValueError: without values, or when one is repeated.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("expected one value or more, got none")
        if len({json.dumps(value) for value in self.values}) < len(self.values):
            raise ValueError(f"expected different values, got {list(self.values)}")

    def __contains__(self, value: Any) -> bool:
        return value in self.values


Space = Mapping[str, Range | Choice]


def parse_range(text: str) -> tuple[str, Range]:
    """Name and range from ``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=LOW:HIGH:STEP``.

    Raises:
        ValueError: on any other text.

    Example:
        >>> parse_range("learning_rate=1e-4:1e-2:log")
        ('learning_rate', Range(low=0.0001, high=0.01, log=True, step=None))
    """
    key, _, values = text.partition("=")
    parts = values.split(":")
    log = parts[2:] == ["log"]
    try:
        low, high, *step = map(_number, parts[:2] if log else parts)
        if len(step) > 1:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"search: expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=LOW:HIGH:STEP, got {text!r}"
        ) from None
    try:
        return key, Range(low, high, log, *step)
    except ValueError as error:
        raise ValueError(f"search: {key}: {error}") from None


def parse_choice(text: str) -> tuple[str, Choice]:
    """Name and values from ``KEY=VALUE,VALUE,...``; values are JSON, or else plain words.

    Raises:
        ValueError: on any other text.

    Example:
        >>> parse_choice("positives=in,out")[1], parse_choice("kl_warmup=null,[0,10]")[1]
        (Choice(values=('in', 'out')), Choice(values=(None, [0, 10])))
    """
    key, separator, values = text.partition("=")
    if not (separator and values):
        raise ValueError(f"choose: expected KEY=VALUE,VALUE,..., got {text!r}")
    try:
        parsed = json.loads(f"[{values}]")
    except json.JSONDecodeError:
        parsed = [_json_or_text(value.strip()) for value in values.split(",")]
    try:
        return key, Choice(tuple(parsed))
    except ValueError as error:
        raise ValueError(f"choose: {key}: {error}") from None


def resolve_space(space: Space, base: RunConfig) -> dict[str, Range | Choice]:
    """The space by full names, every value of its option's own type, after a check against both.

    Args:
        space: what varies, by name as :meth:`~mcfa_fast.classifiers.config.RunConfig.replace` takes
            it.
        base: the run; each value must be valid together with its other options.

    Raises:
        ValueError: on an unknown option, one given twice or in another way, one that the head that
            answers does not depend on, a range of an option that is no number, or a value out of
            the option's bounds.

    Example:
        >>> resolve_space({"learning_rate": Choice((1, 2))}, RunConfig.of("mcfa"))
        {'learning_rate': Choice(values=(1.0, 2.0))}
    """
    resolved: dict[str, Range | Choice] = {}
    for name, dimension in space.items():
        key = searchable(name, base)
        if key in resolved:
            raise ValueError(f"{name}: expected to be searched once, but it is {key}, too")
        if isinstance(dimension, Choice):
            resolved[key] = Choice(tuple(_checked(base, key, v) for v in dimension.values))
            continue
        number = _number_type(base, key)
        if number is None:
            raise ValueError(f"{key}: not a number, so it has no range; give values to choose from")
        # Before conversion, so that a fraction is an error for an option of whole numbers.
        low, high = (_checked(base, key, bound) for bound in (dimension.low, dimension.high))
        if number is int and dimension.step is not None and dimension.step != int(dimension.step):
            raise ValueError(f"{key}: expected a step of a whole number, got {dimension.step}")
        step = None if dimension.step is None else number(dimension.step)
        resolved[key] = Range(number(low), number(high), dimension.log, step)
    return resolved


def searchable(name: str, base: RunConfig) -> str:
    """The full name of an option that a sweep can vary.

    Raises:
        ValueError: when there is no such option, or scores on folds do not depend on it.

    Example:
        >>> searchable("nearest.whitening", RunConfig.of("mcfa", head="ensemble"))
        'nearest.whitening'
        >>> searchable("nearest.whitening", RunConfig.of("mcfa", head="softmax"))
        Traceback (most recent call last):
        ValueError: nearest.whitening: not to be searched, the head 'softmax' does not depend on it
    """
    if name == "seed":
        raise ValueError("seed: not to be searched, it is given by 'seeds'")
    key = base.full_name(name)
    owner = key.rpartition(".")[0]
    if owner == "selection":
        raise ValueError(f"{key}: not to be searched, scores on folds do not depend on it")
    if owner and owner not in (base.head, *HEADS[base.head].needs):
        raise ValueError(
            f"{key}: not to be searched, the head {base.head!r} does not depend on it"
        )
    return key


def grid(space: Space) -> list[dict[str, Any]]:
    """Every point of a space, the last option varying fastest.

    Raises:
        ValueError: when a range has no step.

    Example:
        >>> grid({"epochs": Range(1, 2), "positives": Choice(("in", "out"))})[1]
        {'epochs': 1, 'positives': 'out'}
    """
    axes = []
    for key, dimension in space.items():
        if dimension.values is None:
            raise ValueError(f"{key}: a grid needs a step, or values to choose from")
        axes.append(dimension.values)
    points = product(*axes)
    return [dict(zip(space, point, strict=True)) for point in points]


def _checked(base: RunConfig, key: str, value: Any) -> Any:
    """The value as the option holds it."""
    try:
        return base.replace({key: value}).names[key]
    except ValidationError as error:
        message = "; ".join(problem["msg"] for problem in error.errors())
        raise ValueError(f"{key}: {message}, got {value!r}") from None


def _number_type(base: RunConfig, key: str) -> type | None:
    owner, _, option = key.rpartition(".")
    fields = type(base.heads[owner] if owner else base.options).model_fields
    annotation = (fields.get(option) or TrainingConfig.model_fields[option]).annotation
    union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    return next((kind for kind in (int, float) if kind in kinds), None)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
