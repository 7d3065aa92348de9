"""Training of a system alone, without a classifier."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import TrainingData, as_labels, as_semantics
from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.fit import fit
from mcfa_fast.systems.registry import find
from mcfa_fast.training.loop import History

__all__ = ["Trainer"]


class Trainer:
    """Trains a system on the images of the seen classes.

    All randomness comes from the configuration's seed: on one device with one number of threads,
    the same arguments give bitwise the same weights. With ``run_dir``, the state after every epoch
    is saved there, and a run that was killed at any moment goes on after its last finished epoch
    and ends with the same weights.

    Args:
        config: Options of a system, for example an :class:`~mcfa_fast.systems.mcfa.MCFAConfig`.
        features: [n, F] raw visual features of the training images.
        labels: [n] integer class of each, in 0..C-1.
        semantics: [C, A] descriptors of all classes, those without training images included.
        device: Where to train, for example ``"cuda"``.
        run_dir: Folder for ``training.json``, ``checkpoint.pt``, ``metrics.csv`` and TensorBoard
            events; None writes nothing.
        progress: Show a progress bar.
        resident: Whether all features are brought to the device before training (True) or each
            batch is read from their file while the one before it is computed (False). None does
            the former if they fit in half of the free memory.
        on_epoch_end: Called as ``on_epoch_end(epoch, system)`` after each epoch, counted from 1;
            the numbers it returns by name are recorded with the epoch. It must not change the
            system.
        group: Processes that train together, each with the same arguments; None is this one alone.
            The weights are those that one process would get, up to rounding.

    Raises:
        TypeError: If ``labels`` are not integers, or features or descriptors are not numbers.
        ValueError: If shapes disagree or a label is out of range.

    Example:
        >>> from mcfa_fast import MCFAConfig
        >>> config = MCFAConfig.paper("zsl", epochs=1, classes_per_batch=2, latent_features=4)
        >>> features = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
        >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
        >>> system = Trainer(config, features, labels, torch.eye(3)).fit()
        >>> system.prototypes(torch.eye(3)).shape
        torch.Size([3, 4])
    """

    system: System
    """The system, from initial weights until :meth:`fit` trains it."""
    history: History
    """Per finished epoch: its number, each loss per instance, the hook's numbers, the seconds."""

    def __init__(
        self,
        config: SystemConfig,
        features: Tensor | np.ndarray | FeatureRows,
        labels: Tensor | np.ndarray,
        semantics: Tensor | np.ndarray,
        *,
        device: torch.device | str = "cpu",
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
        resident: bool | None = None,
        on_epoch_end: Callable[[int, System], Mapping[str, float] | None] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        rows = FeatureRows.of(features)
        table = as_semantics(semantics)
        labels = as_labels(labels, len(rows), len(table))
        self._data = TrainingData(
            features=rows,
            labels=labels,
            semantics=table,
            unseen_classes=np.setdiff1d(np.arange(len(table)), labels),
            class_names=tuple(f"class_{index}" for index in range(len(table))),
        )
        self._options: dict[str, Any] = {
            "run_dir": None if run_dir is None else Path(run_dir),
            "progress": progress,
            "resident": resident,
            "group": group,
        }
        self._hook = on_epoch_end
        self.history = []
        self.system = find(type(config)).system(config, rows.width, table.shape[1], device=device)

    def fit(self) -> System:
        """Trains until the configuration's epochs are done, and returns the system.

        Raises:
            ValueError: If the options do not suit the data, a value is not finite, or ``run_dir``
                belongs to a run with other options or data; it names them.
            CheckpointError: If a file in ``run_dir`` is damaged.
            FloatingPointError: If a loss is no longer finite after an epoch.
        """
        given = self._hook
        hook = None if given is None else lambda epoch: given(epoch, self.system)
        self.history = fit(self.system, self._data, on_epoch_end=hook, **self._options)
        return self.system
