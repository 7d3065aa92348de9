"""A progress bar over epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mcfa_fast._extras import require

__all__ = ["epoch_progress"]


@contextmanager
def epoch_progress(epochs: int, done: int, *, show: bool) -> Iterator[Callable[[float], None]]:
    """Shows finished epochs and the latest loss while the context lasts.

    Args:
        epochs: Epochs in all.
        done: Epochs already finished.
        show: Without it nothing is shown.

    Raises:
        MissingExtraError: If it is shown without ``pip install 'mcfa_fast[cli]'``.

    Yields:
        A function to call with the loss of each epoch as it finishes.
    """
    if not show:
        yield lambda loss: None
        return
    require("cli", "progress")
    from rich.progress import Progress, TextColumn

    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]}"))
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=epochs, completed=done, loss="")
        yield lambda loss: bar.update(task, advance=1, loss=f"{loss:.4g}")
