"""Files that are either the old version or the new one, never half of it."""

from __future__ import annotations

import io
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["write_atomically", "write_text"]


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Replaces a file with what ``write`` writes, so that a crash leaves the old or the new file.

    The content goes to a file of an unpredictable name in the same folder, reaches the disk, and
    then takes the place of ``path`` in one step. A link is followed: its target is replaced. What
    is neither a file nor absent, such as a device or a pipe, is written into as it is.

    Args:
        path: The file to replace or create.
        write: Called with the open binary file. Its own errors pass as they are.

    Raises:
        OSError: If the file cannot be written, as on a full disk; it names the file, and what was
            there before is intact.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f"{folder}/a.txt", lambda file: file.write(b"whole"))
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    if mode is not None and not stat.S_ISREG(mode):
        with _naming(path):
            descriptor = os.open(target, os.O_WRONLY)
        _write(descriptor, write, path)
        return
    # At most 4 bytes to a character, and 255 to a name.
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with _naming(path):  # what others may not read, they may not read meanwhile either
        descriptor = os.open(temporary, flags, 0o666 if mode is None else stat.S_IMODE(mode))
    try:
        _write(descriptor, write, path, sync=True)
        with _naming(path):
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file by a text in UTF-8, see :func:`write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


class _Raw(io.FileIO):
    """A file that remembers the first error of the system."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.error = self.error or error
            raise


class _Buffered:
    """A buffered file, but none of ``io``, into which NumPy would write past the buffer."""

    def __init__(self, raw: _Raw) -> None:
        self._file = io.BufferedWriter(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _write(
    descriptor: int,
    write: Callable[[Any], Any],
    path: str | os.PathLike[str],
    *,
    sync: bool = False,
) -> None:
    raw = _Raw(descriptor, "wb")
    file = _Buffered(raw)
    try:
        try:
            write(file)
            file.flush()
            if sync:
                with _naming(path):
                    os.fsync(descriptor)
        finally:
            file.close()
    except Exception as error:
        # Writers such as PyTorch's answer a full disk with errors of their own.
        if raw.error is None:
            raise
        with _naming(path):
            raise raw.error from error


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the system name the file that the caller knows of."""
    try:
        yield
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        raise type(error)(error.errno, message, os.fspath(path)) from error


def _sync_folder(folder: Path) -> None:
    """Makes a new name itself durable; where folders do not open, nothing is to be done."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
