"""The training loop: epochs, resume, metrics, a check that losses are finite."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from mcfa_fast.training.progress import epoch_progress
from mcfa_fast.training.ranks import World
from mcfa_fast.training.run_folder import RunFolder
from mcfa_fast.training.trainable import Trainable
from mcfa_fast.training.update import Update

__all__ = ["EpochHook", "History", "train"]

History = Sequence[dict[str, float]]
"""Per finished epoch: its number, each loss per row, the hook's numbers, the seconds."""

EpochHook = Callable[[int], "Mapping[str, float] | None"]


def train(
    trainable: Trainable,
    *,
    epochs: int,
    run: RunFolder | None = None,
    history: History = (),
    on_epoch_end: EpochHook | None = None,
    progress: bool = False,
    device: torch.device | str = "cpu",
    group: dist.ProcessGroup | None = None,
) -> History:
    """Trains until so many epochs are done.

    With a run folder, the state after every epoch is saved there, and a training that was killed
    at any moment goes on after its last finished epoch and ends with the same weights.

    With a group, the processes of it train the same weights together, each on its share of every
    batch. Results are those of one process up to rounding, and bitwise the same for the same number
    of processes. All of them resume from what rank 0 has saved, however many they are.

    Args:
        trainable: What is trained.
        epochs: Passes over its batches.
        run: Where the state is kept; None writes nothing. Only rank 0 uses it.
        history: What an earlier call returned, to go on from where it ended.
        on_epoch_end: Called with the number of each epoch, counted from 1, after it; the numbers
            it returns by name are recorded with the epoch. It must not change the weights.
        progress: Show a progress bar, on rank 0.
        device: Where a state that was saved is read to.
        group: Processes that train together, all of which call this; None is this one alone.

    Returns:
        The history, epochs before a resume included.

    Raises:
        ValueError: If ``run`` belongs to a run with other options or data; it names them.
        CheckpointError: If a file of it is damaged.
        FloatingPointError: If a loss is no longer finite after an epoch.
        RankError: If another process of the group ends or does not answer.

    Example:
        >>> import torch
        >>> class Descent:
        ...     losses = ("total",)
        ...     def __init__(self):
        ...         self.weight = torch.ones(1, requires_grad=True)
        ...         self.optimizer = torch.optim.SGD([self.weight], lr=0.25)
        ...     def epoch(self, number, world):
        ...         return [torch.zeros(1)]
        ...     def step(self, batch, update):
        ...         loss = (self.weight - batch).square().sum()
        ...         self.optimizer.zero_grad()
        ...         loss.backward()
        ...         update.apply(self.optimizer)
        ...         return loss.detach()[None]
        ...     def eval(self):
        ...         pass
        >>> [row["total"] for row in train(Descent(), epochs=3)]
        [1.0, 0.25, 0.0625]
    """
    history, update = list(history), Update(group)
    world = update.world
    run = run if world.first else None
    try:
        state = _saved(run, torch.device(device), world)
        if state is not None:
            trainable.load_state_dict(state["trainable"])
            history = list(state["history"])
        with epoch_progress(epochs, len(history), show=progress and world.first) as advance:
            for epoch in range(len(history) + 1, epochs + 1):
                history.append(_run_epoch(trainable, epoch, update, on_epoch_end))
                if run is not None:
                    run.finish_epoch({"trainable": trainable.state_dict(), "history": history})
                advance(history[-1]["total"])
    finally:
        if run is not None:
            run.close()
    trainable.eval()
    return history


def _saved(run: RunFolder | None, device: torch.device, world: World) -> dict[str, Any] | None:
    """The state that rank 0 resumes from, on every rank; its file is read there alone."""
    state: dict[str, Any] | None = None

    def read() -> bytes:
        nonlocal state
        state = None if run is None else run.start(device)
        content = io.BytesIO()
        if state is not None and world.size > 1:
            torch.save(state, content)
        return content.getvalue()

    content = world.from_first(read)
    if world.first or not content:
        return state
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def _run_epoch(
    trainable: Trainable, epoch: int, update: Update, hook: EpochHook | None
) -> dict[str, float]:
    started, world = time.perf_counter(), update.world
    sums, rows = None, 0
    with world.meeting():
        for batch in trainable.epoch(epoch, world):
            losses = trainable.step(batch, update)
            if sums is None:
                sums = torch.zeros(len(losses) + 1, dtype=torch.float64, device=losses.device)
            sums[:-1] += losses
            rows += len(batch)
    if sums is None:
        raise ValueError(f"epoch {epoch}: expected one batch or more, got none")
    sums[-1] = rows
    *totals, total = world.sum(sums).tolist()  # the epoch's only wait for the device
    means = {name: value / total for name, value in zip(trainable.losses, totals, strict=True)}
    diverged = [name for name, value in means.items() if not math.isfinite(value)]
    if diverged:
        raise FloatingPointError(
            f"epoch {epoch}: not finite any more: {', '.join(diverged)}; try a lower "
            "learning_rate or check the features' range"
        )
    extra = _call(hook, trainable, epoch)
    return {"epoch": epoch, **means, **extra, "seconds": time.perf_counter() - started}


def _call(hook: EpochHook | None, trainable: Trainable, epoch: int) -> dict[str, float]:
    if hook is None:
        return {}
    trainable.eval()
    extra: dict[str, Any] = {name: float(v) for name, v in (hook(epoch) or {}).items()}
    _check_names(extra, ("epoch", "seconds", *trainable.losses))
    return extra


def _check_names(extra: Iterable[str], taken: Iterable[str]) -> None:
    if reserved := sorted(set(extra) & set(taken)):
        raise ValueError(f"on_epoch_end: the names {reserved} are taken")
