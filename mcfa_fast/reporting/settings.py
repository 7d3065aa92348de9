"""The options of a run against those of its preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcfa_fast.systems.mcfa.config import MCFAConfig

__all__ = ["Setting", "differences", "settings_of"]


@dataclass(frozen=True)
class Setting:
    """One option.

    Attributes:
        name: of the option.
        value: in the run.
        preset: in the preset that the run's mode and task name.
        description: what it does; empty for an option that this version does not have.
    """

    name: str
    value: Any
    preset: Any
    description: str

    @property
    def changed(self) -> bool:
        return self.value != self.preset


def settings_of(config: dict[str, Any]) -> tuple[Setting, ...]:
    """All options of a run.

    Example:
        >>> config = MCFAConfig.paper("gzsl", epochs=3).model_dump(mode="json")
        >>> [(row.name, row.value, row.preset) for row in settings_of(config) if row.changed]
        [('epochs', 3, 50)]
    """
    preset = getattr(MCFAConfig, config["mode"])(config["task"]).model_dump(mode="json")
    fields = MCFAConfig.model_fields
    return tuple(
        Setting(
            name=name,
            value=value,
            preset=preset.get(name),
            description=(fields[name].description or "") if name in fields else "",
        )
        for name, value in config.items()
    )


def differences(configs: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The options that are not the same in all runs, each with its value in every run.

    Example:
        >>> differences([{"epochs": 3, "seed": 0}, {"epochs": 5, "seed": 0}])
        {'epochs': (3, 5)}
    """
    names = dict.fromkeys(name for config in configs for name in config)
    values = {name: tuple(config.get(name) for config in configs) for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}
