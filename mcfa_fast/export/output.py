"""Files to be written that are files to be read."""

from __future__ import annotations

import os

__all__ = ["check_output"]


def check_output(
    output: str | os.PathLike[str], *inputs: str | os.PathLike[str], name: str = "output"
) -> None:
    """Check that writing a file does not overwrite one that it is made of.

    Links are followed and names of the same file compared by what they name.

    Args:
        output: the file to be written.
        inputs: files that are read, which need not exist.
        name: of the argument, for the message.

    Raises:
        ValueError: when `output` is one of the `inputs`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a")
        ...     _ = file.write_text("read")
        ...     check_output(Path(folder, "b"), file)
        ...     check_output(Path(folder, ".", "a"), file)
        Traceback (most recent call last):
        ValueError: output: .../a is read by this command and would be overwritten
    """
    for file in inputs:
        try:
            is_same = os.path.samefile(output, file)
        except FileNotFoundError:
            continue
        if is_same:
            raise ValueError(
                f"{name}: {os.fspath(output)} is read by this command and would be overwritten"
            )
