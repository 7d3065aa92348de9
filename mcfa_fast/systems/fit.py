"""Fitting a system: once, or with one setting after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.storage.identity import fingerprint
from mcfa_fast.systems.base import System, SystemConfig, TrainableConfig
from mcfa_fast.training.loop import History, train
from mcfa_fast.training.ranks import World
from mcfa_fast.training.run_folder import RunFolder
from mcfa_fast.training.trainable import Trainable

__all__ = ["fit", "fit_path"]


def fit(
    system: System,
    data: TrainingData,
    *,
    run_dir: Path | None = None,
    progress: bool = False,
    resident: bool | None = None,
    on_epoch_end: Any = None,
    group: dist.ProcessGroup | None = None,
) -> History:
    """Fit a new system to the images of the seen classes.

    Args:
        system: As it was constructed.
        data: The images.
        run_dir: Where a training keeps its state and resumes; None writes nothing. A system that
            is solved in closed form has none to keep, but says what the folder is for.
        progress: Show a progress bar.
        resident: See :func:`~mcfa_fast.training.placement.place`.
        on_epoch_end: See :func:`~mcfa_fast.training.loop.train`.
        group: Processes that train together, all of which call this; rank 0 alone writes. A closed
            form is solved on each.

    Returns:
        The history of the training; empty for a closed form.

    Raises:
        ValueError, CheckpointError, FloatingPointError: See
            :func:`~mcfa_fast.training.loop.train`.
    """
    if run_dir is not None:
        data.features.watch()
    trainable = system.trainable(data, resident=resident)
    prepared = system.prepare(data) if trainable is None else None
    # Before anything is fitted: the folder may be that of another run.
    run = _run_folder(run_dir, system, data, World(group))
    if trainable is None:
        system.solve(prepared)
        return []
    return train(
        trainable,
        epochs=_epochs(system.config),
        run=run,
        on_epoch_end=on_epoch_end,
        progress=progress,
        device=system.device,
        group=group,
    )


def fit_path(
    system: type[System],
    configs: Iterable[SystemConfig],
    data: TrainingData,
    *,
    device: torch.device | str = "cpu",
    group: dist.ProcessGroup | None = None,
) -> Iterator[System | None]:
    """Fit with one configuration after the other, to the same images.

    Each result is that of :func:`fit`, at a lower price: a closed form prepares the data once, and
    a training whose configuration differs from the one before by more epochs only goes on.

    Args:
        system: The class.
        configs: Of the system; more epochs of the same follow fewer.
        data: The images.
        device: Where to compute.
        group: See :func:`fit`.

    Yields:
        The system after each; it changes with the next. None where the training diverged.
    """
    current: _Path | None = None
    for config in configs:
        if current is None or not current.goes_on_to(config):
            current = _Path(system, config, data, device, group, current)
        yield current.fitted(config)


class _Path:
    """A system that goes from one configuration to the next."""

    def __init__(
        self,
        system: type[System],
        config: SystemConfig,
        data: TrainingData,
        device: torch.device | str,
        group: dist.ProcessGroup | None,
        before: _Path | None,
    ) -> None:
        self._group = group
        widths = data.features.width, data.semantics.shape[1]
        self.system = system(config, *widths, device=device)
        self._trainable: Trainable | None = self.system.trainable(data)
        self._history: History = []
        self._diverged = False
        self._prepared: Any = None
        if self._trainable is None:
            shared = None if before is None else before._prepared
            self._prepared = self.system.prepare(data) if shared is None else shared

    def goes_on_to(self, config: SystemConfig) -> bool:
        if self._trainable is None or not isinstance(config, TrainableConfig):
            return False
        own = self.system.config
        same = own.replace(epochs=config.training.epochs) == config
        return same and len(self._history) <= config.training.epochs

    def fitted(self, config: SystemConfig) -> System | None:
        self.system.config = config
        if self._trainable is None:
            self.system.solve(self._prepared)
            return self.system
        if not self._diverged:
            try:
                self._history = train(
                    self._trainable,
                    epochs=_epochs(config),
                    history=self._history,
                    group=self._group,
                )
            except FloatingPointError:
                self._diverged = True
        return None if self._diverged else self.system


def _run_folder(
    run_dir: Path | None, system: System, data: TrainingData, world: World
) -> RunFolder | None:
    """The folder, on rank 0, whose error is that of all ranks."""
    folder: RunFolder | None = None

    def claim() -> bytes:
        nonlocal folder
        folder = None if run_dir is None else RunFolder(run_dir, _identity(system, data))
        return b""

    world.from_first(claim)
    return folder


def _epochs(config: SystemConfig) -> int:
    assert isinstance(config, TrainableConfig), "a trainable system has a TrainableConfig"
    return config.training.epochs


def _identity(system: System, data: TrainingData) -> dict[str, Any]:
    return {
        "system": system.name,
        "config": system.config.model_dump(mode="json"),
        "features": data.features.fingerprint,
        "labels": fingerprint([torch.from_numpy(data.labels)]),
        "semantics": fingerprint([data.semantics]),
        "device": system.device.type,
    }
