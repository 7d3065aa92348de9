"""Training of MCFA."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.systems.mcfa.model import MCFA
from mcfa_fast.systems.mcfa.objective import LossWeights, MCFALosses
from mcfa_fast.training.features import place
from mcfa_fast.training.inputs import check_training_data
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.training.progress import epoch_progress
from mcfa_fast.training.run_folder import RunFolder, fingerprint
from mcfa_fast.training.sampler import make_sampler
from mcfa_fast.systems.mcfa.step import StepInput, make_step

__all__ = ["Trainer"]

EpochHook = Callable[[int, MCFA], "dict[str, float] | None"]


class Trainer:
    """Trains the two VAEs on the images of the seen classes.

    All randomness comes from ``config.seed``: on one device with one number of threads, the same
    arguments give bitwise the same weights. With ``run_dir``, the state after every epoch is saved
    there, and a run that was killed at any moment goes on after its last finished epoch and ends
    with the same weights.

    Args:
        config: Options.
        features: [n, F] raw visual features of the training images, tensor or array.
        labels: [n] integer class of each, in 0..C-1.
        semantics: [C, A] descriptors of all classes, those without training images included.
        device: Where to train, for example ``"cuda"``.
        run_dir: Folder for ``config.json``, ``checkpoint.pt``, ``metrics.csv`` and TensorBoard
            events; None writes nothing.
        progress: Show a progress bar.
        resident: Whether all features are brought to the device before training (True) or each
            batch is read from a memory-mapped array while the one before it is computed (False).
            None does the former if they fit in half of the free memory.
        on_epoch_end: Called as ``on_epoch_end(epoch, model)`` after each epoch, counted from 1;
            the numbers it returns by name are recorded with the epoch. It must not change the
            model.

    Raises:
        TypeError: If ``labels`` are not integers, or features or descriptors are not numbers.
        ValueError: If shapes disagree, a value is not finite, a label is out of range, or
            ``config`` asks for more classes per batch than there are.

    Source:
        Liu et al., Section III-A.

    Example:
        >>> config = MCFAConfig.paper("zsl", epochs=1, classes_per_batch=2, latent_features=4)
        >>> features = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
        >>> labels = [0, 0, 0, 0, 1, 1, 1, 1]
        >>> model = Trainer(config, features, labels, torch.eye(3)).fit()
        >>> model.encode_semantic(torch.eye(3))[0].shape
        torch.Size([3, 4])
    """

    model: MCFA
    """The model, from initial weights until :meth:`fit` trains it."""
    history: list[dict[str, float]]
    """Per finished epoch: its number, each loss per instance, the hook's numbers, the seconds."""

    def __init__(
        self,
        config: MCFAConfig,
        features: Tensor | np.ndarray,
        labels: Tensor | np.ndarray,
        semantics: Tensor | np.ndarray,
        *,
        device: torch.device | str = "cpu",
        run_dir: str | os.PathLike[str] | None = None,
        progress: bool = False,
        resident: bool | None = None,
        on_epoch_end: EpochHook | None = None,
    ) -> None:
        self.config = config
        self._device = torch.device(device)
        raw, labels, semantics = check_training_data(features, labels, semantics)
        inputs = {}
        if run_dir is not None:
            inputs = {
                "features": fingerprint(raw.chunks()),
                "labels": fingerprint([labels]),
                "semantics": fingerprint([semantics]),
                "device": self._device.type,
            }
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._inputs = inputs
        self._progress = progress
        self._on_epoch_end = on_epoch_end

        self.history = []
        self.model = MCFA(raw.shape[1], semantics.shape[1], config)
        self.model.scaler.fit(raw.chunks())
        self.model.semantic_scaler.fit(semantics[labels.unique()])
        self._features = place(raw, self.model.scaler, self._device, resident)
        self._semantics = self.model.semantic_scaler(semantics).to(self._device)
        self.model.to(self._device)
        self._optimizer = FusedAdam(
            self.model.parameters(), config.scaled_learning_rate(len(labels))
        )
        self._sampler_generator = config.generator("sampler")
        self._noise_generator = config.generator("noise", self._device)
        self._sampler = make_sampler(config, labels, self._sampler_generator, self._device)
        self._step = make_step(config, self.model, self._optimizer, self._noise_generator)

    def fit(self) -> MCFA:
        """Trains until ``config.epochs`` epochs are done, and returns the model.

        Raises:
            ValueError: If ``run_dir`` belongs to a run with other options or data; it names them.
            CheckpointError: If a file in ``run_dir`` is damaged.
            FloatingPointError: If a loss is no longer finite after an epoch.
        """
        folder = None
        if self._run_dir is not None:
            folder = RunFolder(self._run_dir, self.config, self._inputs)
            state = folder.start(self._device)
            if state is not None:
                self._load_state(state)
        epochs, done = self.config.epochs, len(self.history)
        try:
            with epoch_progress(epochs, done, show=self._progress) as advance:
                for epoch in range(done + 1, epochs + 1):
                    self.history.append(self._run_epoch(epoch))
                    if folder is not None:
                        folder.finish_epoch(self._state())
                    advance(self.history[-1]["total"])
        finally:
            if folder is not None:
                folder.close()
        return self.model.eval()

    def _run_epoch(self, epoch: int) -> dict[str, float]:
        started = time.perf_counter()
        self.model.train()
        sums = torch.zeros(len(MCFALosses._fields), dtype=torch.float64, device=self._device)
        instances = 0
        weights = LossWeights.of(self.config, epoch)
        for batch, features in self._features.batches(self._sampler):
            semantics = self._semantics.index_select(0, batch.classes)
            sums += self._step(StepInput(features, semantics, batch.labels), weights)
            instances += len(batch.rows)
        # The epoch's only wait for the device.
        losses = dict(zip(MCFALosses._fields, (sums / instances).tolist(), strict=True))
        diverged = [name for name, value in losses.items() if not math.isfinite(value)]
        if diverged:
            raise FloatingPointError(
                f"epoch {epoch}: not finite any more: {', '.join(diverged)}; try a lower "
                f"learning_rate (now {self.config.learning_rate}) or check the features' range"
            )
        extra = self._call_hook(epoch)
        seconds = time.perf_counter() - started
        return {"epoch": epoch, **losses, **extra, "seconds": seconds}

    def _call_hook(self, epoch: int) -> dict[str, float]:
        if self._on_epoch_end is None:
            return {}
        self.model.eval()
        extra = {k: float(v) for k, v in (self._on_epoch_end(epoch, self.model) or {}).items()}
        reserved = {"epoch", "seconds", *MCFALosses._fields} & extra.keys()
        if reserved:
            raise ValueError(f"on_epoch_end: the names {sorted(reserved)} are taken")
        return extra

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "sampler_generator": self._sampler_generator.get_state(),
            "noise_generator": self._noise_generator.get_state(),
            "history": self.history,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        # Generator states are always CPU tensors, wherever the generator draws.
        self._sampler_generator.set_state(state["sampler_generator"].cpu())
        self._noise_generator.set_state(state["noise_generator"].cpu())
        self.history = list(state["history"])
