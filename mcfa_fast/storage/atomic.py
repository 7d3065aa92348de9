"""Files that are either the old version or the new one, never half of it."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
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
        write: Called with the open binary file.

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
        with open(target, "wb") as file:
            write(file)
        return
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        raise _naming(error, path) from error
    try:
        with _Recorded(os.fdopen(descriptor, "wb")) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # Writers such as PyTorch's answer a full disk with errors of their own.
        cause = file.error or error
        if isinstance(cause, OSError):
            raise _naming(cause, path) from error
        raise
    _sync_folder(target.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file by a text in UTF-8, see :func:`write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


class _Recorded:
    """A binary file that remembers the first error of its system."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def __enter__(self) -> _Recorded:
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


_BINARY = getattr(os, "O_BINARY", 0)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _naming(error: OSError, path: str | os.PathLike[str]) -> OSError:
    """The same error with the file that the caller knows of."""
    return type(error)(error.errno, f"cannot be written: {error.strerror}", os.fspath(path))


def _sync_folder(folder: Path) -> None:
    """Makes a new name itself durable; where folders do not open, nothing is to be done."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
