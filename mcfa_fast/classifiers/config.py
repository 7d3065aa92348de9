"""Everything that a run does: a system, its options, its heads, what is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

from pydantic import SerializeAsAny, model_validator

from mcfa_fast.classifiers.heads import HEADS
from mcfa_fast.selection.config import SelectionConfig
from mcfa_fast.systems.base import SystemConfig, TrainableConfig
from mcfa_fast.systems.presets import Task, check_task
from mcfa_fast.systems.registry import RECOMMENDED, find
from mcfa_fast.training.config import Options, TrainingConfig

__all__ = ["RunConfig"]

_ARGUMENTS = ("system", "preset", "task", "head", "seed")


class RunConfig(Options):
    """Options of a run, each with its owner.

    Trained weights depend on ``options`` (and the data) alone; heads and selection work on a
    trained system, so that changing theirs trains nothing again.

    Example:
        >>> run = RunConfig.of("mcfa", task="gzsl", options={"epochs": 3, "softmax.epochs": 5})
        >>> run.head, run.options.training.epochs, run.heads["softmax"].epochs
        ('softmax', 3, 5)
        >>> RunConfig.model_validate_json(run.model_dump_json()) == run
        True
    """

    system: str
    preset: str
    task: Task
    head: str
    options: SerializeAsAny[SystemConfig]
    heads: dict[str, SerializeAsAny[Options]]
    selection: SelectionConfig

    @classmethod
    def of(
        cls,
        system: str | SystemConfig = RECOMMENDED,
        *,
        task: Task = "zsl",
        preset: str | None = None,
        head: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> RunConfig:
        """The run that a system's preset describes, with changes.

        Args:
            system: Name of a system, or its options.
            task: "zsl" or "gzsl".
            preset: Name of a preset of the system; None is its first.
            head: Which head answers; None is the preset's.
            options: Changes, by name as :meth:`replace` takes them.

        Raises:
            ValueError: On an unknown name, or an option out of its bounds.
        """
        check_task(task)
        entry = find(system if isinstance(system, str) else type(system))
        if preset is None:
            preset = next(iter(entry.presets))
        if preset not in entry.presets:
            raise ValueError(f"preset: {entry.name} has {', '.join(entry.presets)}, got {preset!r}")
        found = entry.presets[preset](task)
        config = entry.system.Config().replace(**found.options)
        if isinstance(system, SystemConfig):
            config = system
        head = head or found.head or entry.heads[0]
        _check_head(head, entry.heads, entry.name)
        run = cls(
            system=entry.name,
            preset=preset,
            task=task,
            head=head,
            options=config,
            heads={name: HEADS[name].Options(**found.heads.get(name, {})) for name in entry.heads},
            selection=SelectionConfig(**found.selection),
        )
        return run.replace(options) if options else run

    @model_validator(mode="before")
    @classmethod
    def _find_classes(cls, content: Any) -> Any:
        """Options of the system's own class, and of the heads', when they are read from JSON."""
        if not isinstance(content, dict) or not isinstance(content.get("system"), str):
            return content
        options, heads = content.get("options"), content.get("heads")
        # What is read from a file must not import; options that are objects are not.
        entry = find(content["system"], imports=isinstance(options, SystemConfig))
        if isinstance(options, dict):
            content = {**content, "options": entry.system.Config(**options)}
        if isinstance(heads, dict):
            for name in heads:
                _check_head(name, entry.heads, entry.name)
            made = {
                name: HEADS[name].Options(**own) if isinstance(own, dict) else own
                for name, own in heads.items()
            }
            content = {**content, "heads": made}
        return content

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        _check_head(self.head, tuple(self.heads), self.system)
        for name, options in self.heads.items():
            HEADS[name].check(options, self.task)
        if self.selection.rule == "test" and self.preset != "reference":
            raise ValueError(
                "selection: rule 'test' looks at test images, so that its results are optimistic; "
                f"it is for preset 'reference' only, got {self.preset!r}"
            )
        return self

    def replace(self, changes: Mapping[str, Any]) -> RunConfig:
        """A validated copy with changes of options.

        Args:
            changes: By name: of the system ("temperature"), of its training ("epochs"), of a head
                ("softmax.epochs", or "whitening" where only one head has it) or of selection
                ("selection.folds"; "selection" alone is its rule).

        Raises:
            ValueError: On an unknown name, which is answered with similar ones, or a value out of
                its bounds.

        Example:
            >>> RunConfig.of("dual-encoder").replace({"whitening": 2.0}).heads["nearest"].whitening
            2.0
        """
        system: dict[str, Any] = {}
        heads: dict[str, dict[str, Any]] = {name: {} for name in self.heads}
        selection: dict[str, Any] = {}
        for name, value in changes.items():
            owner, option = self._owner(name)
            if owner == "selection":
                selection[option] = value
            elif owner == "system":
                system[option] = value
            else:
                heads[owner][option] = value
        return self._changed(
            options=self.options.replace(**system) if system else self.options,
            heads={
                name: type(own)(**{**own.model_dump(), **heads[name]})
                for name, own in self.heads.items()
            },
            selection=SelectionConfig(**{**self.selection.model_dump(), **selection}),
        )

    def with_arguments(self, *, head: str | None = None, seed: int | None = None) -> RunConfig:
        """A copy with another head or seed, where one is given.

        Raises:
            ValueError: On a head that the system does not have.
        """
        head = head or self.head
        _check_head(head, tuple(self.heads), self.system)
        options = self.options if seed is None else self.options.replace(seed=seed)
        return self._changed(head=head, options=options)

    def _changed(self, **fields: Any) -> RunConfig:
        """A copy with other fields, validated, which ``model_copy`` would not do."""
        return type(self)(**{**dict(self), **fields})

    @property
    def names(self) -> dict[str, Any]:
        """Every option by the name that :meth:`replace` takes, with its present value."""
        own = self.options.model_dump()
        training = own.pop("training", {}) if isinstance(self.options, TrainableConfig) else {}
        found = {**own, **training}
        found.pop("seed")
        for head, options in self.heads.items():
            found |= {f"{head}.{name}": value for name, value in options.model_dump().items()}
        return found | {
            f"selection.{name}": value for name, value in self.selection.model_dump().items()
        }

    def full_name(self, name: str) -> str:
        """The one of :attr:`names` that a name means, as :meth:`replace` takes it.

        Raises:
            ValueError: On an unknown name.

        Example:
            >>> run = RunConfig.of("mcfa")
            >>> run.full_name("whitening"), run.full_name("training.epochs")
            ('nearest.whitening', 'epochs')
        """
        owner, option = self._owner(name)
        return option if owner == "system" else f"{owner}.{option}"

    def settings(self, fixed: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The settings that selection by rule "grid" chooses from; the present one is among them.

        Args:
            fixed: Options that are not to be changed.
        """
        entry, names = find(self.system), self.names
        kept = {self.full_name(name) for name in fixed or {}}
        grid = {name: values for name, values in entry.grid.items() if name not in kept}
        if entry.shortens and "epochs" in grid:
            most = names["epochs"]
            grid["epochs"] = (*(value for value in grid["epochs"] if value < most), most)
        own = {name: names[name] for name in grid}
        points = [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]
        return points if own in points else [own, *points]

    def _owner(self, name: str) -> tuple[str, str]:
        if name in _ARGUMENTS:
            raise ValueError(f"{name}: not an option; it is given by the argument {name!r}")
        if name == "selection":
            return "selection", "rule"
        owner, _, option = name.rpartition(".")
        owners = {head: type(own).model_fields for head, own in self.heads.items()}
        owners["selection"] = SelectionConfig.model_fields
        if owner in owners and option in owners[owner]:
            return owner, option
        if owner in ("", "training"):
            fields = {} if owner else type(self.options).model_fields
            training = TrainingConfig.model_fields
            is_training = isinstance(self.options, TrainableConfig) and option in training
            if option != "training" and (option in fields or is_training):
                return "system", option
            having = [head for head, names in owners.items() if option in names]
            if not owner and len(having) == 1:
                return having[0], option
        known = [*self.names, *(option for name in self.names for option in [name.split(".")[-1]])]
        near = ", ".join(dict.fromkeys(get_close_matches(name, known, n=3)))
        hint = f"; similar are {near}" if near else ""
        raise ValueError(f"{name}: {self.system} has no such option{hint}")


def _check_head(head: str, heads: tuple[str, ...], system: str) -> None:
    if head not in heads:
        raise ValueError(f"head: {system} has {', '.join(heads)}, got {head!r}")
