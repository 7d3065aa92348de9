"""Files that are the old version or the new one, whatever happens while they are written."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mcfa_fast.storage import atomic as module
from mcfa_fast.storage import write_atomically, write_checkpoint, write_text

OLD, NEW = b"old", b"new"


def write_new(file):
    file.write(NEW)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


@pytest.fixture
def no_files_left(tmp_path):
    yield
    assert not list(tmp_path.rglob("*.tmp"))


pytestmark = pytest.mark.usefixtures("no_files_left")


def test_a_file_is_replaced_or_created(path):
    write_atomically(path, write_new)
    write_atomically(path.with_name("other"), write_new)
    assert path.read_bytes() == path.with_name("other").read_bytes() == NEW
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()


def test_a_failed_write_keeps_the_old_file(path):
    def write(file):
        file.write(b"half of the ne")
        raise RuntimeError("of the writer")

    with pytest.raises(RuntimeError, match="of the writer"):
        write_atomically(path, write)
    assert path.read_bytes() == OLD


def test_an_error_of_another_file_keeps_its_name(path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, lambda file: file.write(Path("absent").read_bytes()))
    assert caught.value.filename == "absent"
    assert path.read_bytes() == OLD


def test_an_interrupt_leaves_the_old_file(path):
    def write(file):
        file.write(NEW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_bytes() == OLD


def test_content_reaches_the_disk_before_the_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def recorded(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(os, name, recorded)
    write_atomically(path, write_new)
    assert calls == ["fsync", "replace", "fsync"]


def test_links_are_followed(tmp_path, path):
    (tmp_path / "folder").mkdir()
    links = [tmp_path / "folder" / "link", tmp_path / "link of a link"]
    links[0].symlink_to(os.path.join("..", "file"))
    links[1].symlink_to(links[0])
    write_atomically(links[1], write_new)
    assert path.read_bytes() == NEW and all(link.is_symlink() for link in links)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "to come")
    write_atomically(dangling, write_new)
    assert (tmp_path / "to come").read_bytes() == NEW and dangling.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_permissions_are_kept(path, mode):
    path.chmod(mode)
    seen = []

    def write(file):
        (temporary,) = path.parent.glob(".file.*")
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        file.write(NEW)

    write_atomically(path, write)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == NEW
    assert not seen[0] & ~mode, "nor are they wider while the file is written"


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", write_new)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_pipes_and_devices_are_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, write_new)
    reader.join()
    assert received == [NEW] and stat.S_ISFIFO(pipe.stat().st_mode)
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_atomically(link, write_new)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and link.is_symlink()


def test_temporary_names_cannot_be_planted(path, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    monkeypatch.setattr(module.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / ".file.guessed.tmp").symlink_to(target)
    with pytest.raises(FileExistsError) as caught:
        write_atomically(path, write_new)
    assert caught.value.filename == str(path)
    assert (target.read_bytes(), path.read_bytes()) == (b"precious", OLD)
    (tmp_path / ".file.guessed.tmp").unlink()
    monkeypatch.undo()
    names = set()
    for _ in range(20):
        write_atomically(path, lambda file: names.update(tmp_path.glob(".file.*")))
    assert len(names) == 20


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "🛰" * 63])
def test_the_longest_names(tmp_path, name):
    write_atomically(tmp_path / name, write_new)
    assert (tmp_path / name).read_bytes() == NEW


@pytest.mark.parametrize(
    ("place", "error"),
    [("absent/file", FileNotFoundError), (".", IsADirectoryError), ("file/x", NotADirectoryError)],
)
def test_places_that_cannot_be_written(path, place, error):
    with pytest.raises(error) as caught:
        write_atomically(path.parent / place, write_new)
    assert Path(caught.value.filename) == path.parent / place


WRITERS = {
    "bytes": lambda path: write_atomically(path, lambda file: file.write(bytes(10**6))),
    "little": lambda path: write_atomically(path, lambda file: file.write(bytes(10))),
    "numpy": lambda path: write_atomically(path, lambda file: np.save(file, np.ones(10**5))),
    "archive": lambda path: write_atomically(path, lambda file: np.savez(file, a=np.ones(10**5))),
    "checkpoint": lambda path: write_checkpoint(path, {"weights": torch.ones(10**6)}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_device_is_one_error(writer):
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        WRITERS[writer](Path("/dev/full"))


@pytest.mark.parametrize("writer", sorted(WRITERS.keys() - {"little"}))
def test_a_full_disk_keeps_the_old_file(path, writer):
    """No file may be longer than 4 KiB, as on a disk that has so much left."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            WRITERS[writer](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(path)
    assert str(caught.value) == f"[Errno 27] cannot be written: File too large: '{path}'"
    assert path.read_bytes() == OLD
    WRITERS[writer](path)
    assert path.stat().st_size > 4096


KILLED = """
import os, sys
from mcfa_fast.storage import write_atomically

def write(file):
    file.write(bytes(10**6))
    os.kill(os.getpid(), 9)

write_atomically(sys.argv[1], write)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path, path):
    result = subprocess.run([sys.executable, "-c", KILLED, path])
    assert result.returncode == -signal.SIGKILL and path.read_bytes() == OLD
    (left,) = tmp_path.glob(".file.*.tmp")  # nobody was there to remove it
    left.unlink()


def test_writers_at_the_same_time_tear_nothing(path):
    contents = {bytes([letter]) * 300_000 for letter in b"abcd"}
    wrong, done = [], threading.Event()

    def write(content):
        for _ in range(25):
            write_atomically(path, lambda file: [file.write(content[:1000]), file.write(content)])

    def read():
        while not done.is_set():
            found = path.read_bytes()
            if found != OLD and found[1000:] not in contents:
                wrong.append(len(found))

    path.write_bytes(OLD)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert not wrong
