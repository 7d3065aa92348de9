"""The options of a run, by their owners, against those of its preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.training.config import Options

__all__ = ["ABSENT", "Setting", "SettingGroup", "differences", "settings_of"]

ABSENT = "–"
"""In place of the value of an option that a run does not have."""


@dataclass(frozen=True)
class Setting:
    """One option.

    Attributes:
        name: as ``--set`` takes it.
        value: in the run.
        preset: in the run's preset.
        description: what it does.
        chosen: whether selection chose the value.
    """

    name: str
    value: Any
    preset: Any
    description: str
    chosen: bool = False

    @property
    def changed(self) -> bool:
        return self.value != self.preset


@dataclass(frozen=True)
class SettingGroup:
    """The options of one owner: the system, its training, a head or selection."""

    owner: str
    settings: tuple[Setting, ...]


def settings_of(
    config: RunConfig, chosen: Mapping[str, Any] | None = None
) -> tuple[SettingGroup, ...]:
    """All options of a run.

    Args:
        config: the run.
        chosen: what selection chose, by name.

    Example:
        >>> run = RunConfig.of("mcfa", task="gzsl", options={"epochs": 3, "softmax.epochs": 5})
        >>> for group in settings_of(run):
        ...     for row in group.settings:
        ...         if row.changed:
        ...             print(group.owner, row.name, row.value, row.preset)
        training epochs 3 50
        head softmax softmax.epochs 5 23
    """
    preset = RunConfig.of(config.system, task=config.task, preset=config.preset)
    owners: list[tuple[str, str, Options, Options]] = [
        (f"system {config.system}", "", config.options, preset.options)
    ]
    own, standard = config.options, preset.options
    if isinstance(own, TrainableConfig) and isinstance(standard, TrainableConfig):
        owners.append(("training", "", own.training, standard.training))
    owners += [
        (f"head {head}", f"{head}.", own, preset.heads[head]) for head, own in config.heads.items()
    ]
    owners.append(("selection", "selection.", config.selection, preset.selection))
    return tuple(
        SettingGroup(owner, settings)
        for owner, prefix, own, standard in owners
        if (settings := tuple(_settings(prefix, own, standard, chosen or {})))
    )


def _settings(
    prefix: str, own: Options, preset: Options, chosen: Mapping[str, Any]
) -> list[Setting]:
    values, standard = own.model_dump(mode="json"), preset.model_dump(mode="json")
    return [
        Setting(
            name=prefix + name,
            value=values[name],
            preset=standard[name],
            description=field.description or "",
            chosen=prefix + name in chosen,
        )
        for name, field in type(own).model_fields.items()
        if name != "training"  # an owner of its own
    ]


def differences(configs: Sequence[RunConfig]) -> dict[str, tuple[Any, ...]]:
    """What is not the same in all runs that have it, each with its value in every run; a run
    without it has :data:`ABSENT`.

    Example:
        >>> runs = [RunConfig.of("mcfa", options={"epochs": epochs}) for epochs in (3, 5)]
        >>> differences([*runs, RunConfig.of("eszsl", preset="paper")])["epochs"]
        (3, 5, '–')
    """
    flat = [
        {
            "system": config.system,
            "preset": config.preset,
            "task": config.task,
            "head": config.head,
            "seed": config.options.seed,
            **config.names,
        }
        for config in configs
    ]
    found = {}
    for name in dict.fromkeys(name for own in flat for name in own):
        having = [own[name] for own in flat if name in own]
        if any(value != having[0] for value in having):
            found[name] = tuple(own.get(name, ABSENT) for own in flat)
    return found
