"""Who takes part in a comparison: systems with one of their presets each, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.selection.config import Rule, SelectionConfig
from mcfa_fast.systems.presets import Task
from mcfa_fast.systems.registry import RECOMMENDED, SYSTEMS, find, make_known

__all__ = ["Contestant", "default_opponent", "group_names", "resolve_contestants"]


@dataclass(frozen=True)
class Contestant:
    """A system with a preset.

    Example:
        >>> Contestant("mcfa", "v0").label("nearest"), Contestant("eszsl", "paper").label("scores")
        ('mcfa:v0/nearest', 'eszsl')
    """

    system: str
    preset: str

    @property
    def name(self) -> str:
        """``system:preset``, the preset left out where it is the system's first."""
        is_first = self.preset == next(iter(find(self.system).presets))
        return self.system if is_first else f"{self.system}:{self.preset}"

    def label(self, head: str) -> str:
        """Name of the results of a head: the head is left out where the system has one only."""
        return self.name if len(find(self.system).heads) == 1 else f"{self.name}/{head}"

    def config(self, task: Task, seed: int, *, transductive: bool = False) -> RunConfig:
        """The run of a comparison: the preset, tuned by the one protocol of all contestants.

        That is selection by rule "grid" on the folds that the seed draws; a reference preset keeps
        its rule "test", as its numbers are those of the authors' code. For a transductive
        comparison the strengths of the refinement are chosen on the same folds.
        """
        config = RunConfig.of(self.system, task=task, preset=self.preset).with_arguments(seed=seed)
        rule: Rule = "test" if config.selection.rule == "test" else "grid"
        selection = SelectionConfig(rule=rule, transductive=transductive)
        return config.model_copy(update={"selection": selection})

    @property
    def order(self) -> tuple[int, int]:
        """Its place among all, that of the registry; contestants that are no more come last."""
        systems = list(SYSTEMS)
        if self.system not in SYSTEMS:
            return len(systems), 0
        presets = list(SYSTEMS[self.system].presets)
        known = self.preset in presets
        return systems.index(self.system), presets.index(self.preset) if known else len(presets)


def resolve_contestants(names: Sequence[str]) -> list[Contestant]:
    """Contestants by name, in the order of the registry.

    Args:
        names: each a system (with its first preset), a preset of one (``system:preset``), a group
            of systems, a series of presets, or "all" systems.

    Raises:
        ValueError: on any other name.

    Example:
        >>> [contestant.name for contestant in resolve_contestants(["ablation", "mcfa", "eszsl"])]
        ['mcfa', 'mcfa:v0', 'mcfa:v1', 'mcfa:v2', 'mcfa:v3', 'mcfa:v4', 'mcfa:v5', 'eszsl']
    """
    found = {contestant for name in names for contestant in _resolve(name)}
    return sorted(found, key=lambda contestant: contestant.order)


def default_opponent() -> str:
    """The label that others are compared with where none is named: the recommended system's.

    Example:
        >>> default_opponent()
        'dual-encoder'
    """
    (contestant,) = _resolve(RECOMMENDED)
    return contestant.label(contestant.config("zsl", 0).head)


def _resolve(name: str) -> list[Contestant]:
    system, separator, preset = name.rpartition(":")
    for possible in filter(None, (system, name)):  # "MODULE:NAME" of another package
        make_known(possible)
    if separator and system in SYSTEMS:
        if preset not in (presets := SYSTEMS[system].presets):
            raise ValueError(f"systems: {system} has presets {', '.join(presets)}, got {name!r}")
        return [Contestant(system, preset)]
    first = [
        Contestant(entry.name, next(iter(entry.presets)))
        for entry in SYSTEMS.values()
        if name in (entry.name, entry.group, "all")
    ]
    series = [
        Contestant(entry.name, own)
        for entry in SYSTEMS.values()
        for own in entry.series.get(name, ())
    ]
    if not first + series:
        raise ValueError(
            f"systems: expected systems among {', '.join(SYSTEMS)}, a preset as 'SYSTEM:PRESET', "
            f"groups among {', '.join(group_names())} or 'all', got {name!r}"
        )
    return first + series


def group_names() -> list[str]:
    """Names that stand for several contestants, but for "all"."""
    found = [name for entry in SYSTEMS.values() for name in (entry.group, *entry.series)]
    return list(dict.fromkeys(found))
