"""The command line as one of several processes that torchrun, or another launcher, has started."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import typer

from mcfa_fast.cli.common import console
from mcfa_fast.training.ranks import RankError

__all__ = ["is_launched", "launched", "leave_to_first"]

_TIMEOUT = "MCFA_FAST_TIMEOUT"
_SECONDS = 600.0


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def launched(device: str) -> Iterator[tuple[str, dist.ProcessGroup | None]]:
    """Joins the processes that were started together, as long as the context lasts.

    They are known by the environment that torchrun sets: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``
    and where they meet (``MASTER_ADDR``, ``MASTER_PORT``). They talk by NCCL on GPUs and by gloo on
    CPUs. One that does not answer for ``MCFA_FAST_TIMEOUT`` seconds (600) is an error on the
    others. Only rank 0 prints; of errors, the first rank that has one prints it.

    Args:
        device: where to compute, as the user said; "cuda" is the GPU of the number ``LOCAL_RANK``.

    Yields:
        The device of this process and the group; None where it was started alone.

    Raises:
        ValueError: when the environment does not say what it has to.
    """
    if not is_launched():
        yield device, None
        return
    kind, _, index = device.partition(":")
    if index:
        raise ValueError(
            f"--device: expected {kind} for several processes, each of which takes its own; got "
            f"{device}"
        )
    if kind == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    store, rank = _meet("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    try:
        with _quiet(rank > 0):
            yield device, dist.group.WORLD
    except Exception:
        if _has_spoken(store):
            raise typer.Exit(1) from None
        raise
    finally:
        dist.destroy_process_group()
        gc.collect()  # what still knows the group: its threads have to end before the interpreter


def _meet(backend: str) -> tuple[Any, int]:
    """The store that all processes know, and this one's rank among them."""
    timeout = _timeout()
    # Processes do not start at the same moment, however soon they have to answer afterwards.
    to_start = max(timeout, timedelta(seconds=_SECONDS))
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=to_start))
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=timeout
        )
    except RuntimeError as error:
        words = str(error).splitlines()[0]
        raise RankError(f"the processes started together did not meet: {words}") from error
    return store, rank


def leave_to_first(command: str, *, refused: bool) -> None:
    """Ends this process, of several, unless it is the one that does a command for all.

    Args:
        command: its name.
        refused: whether the command starts processes of its own, and must be started without
            torchrun.

    Raises:
        BadParameter: on rank 0, when it is refused.
        Exit: on the others.
    """
    if not is_launched():
        return
    if os.environ["RANK"] != "0":
        raise typer.Exit(2 if refused else 0)
    if refused:
        raise typer.BadParameter(f"{command} is for one process; start it without torchrun")


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Nothing is printed but errors, if so."""
    before = console.quiet
    console.quiet = quiet or before
    try:
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            yield
    finally:
        console.quiet = before


def _has_spoken(store: Any) -> bool:
    """Whether another rank prints why the command has failed; if not, this one does."""
    try:
        return store.add("mcfa_fast/errors", 1) > 1
    except RuntimeError:  # the store has ended with the process that kept it
        return False


def _timeout() -> timedelta:
    text = os.environ.get(_TIMEOUT, str(_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{_TIMEOUT}: expected a number of seconds above 0, got {text!r}")
    return timedelta(seconds=seconds)
