"""Many independent jobs over worker processes, with results that survive a crash."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from mcfa_fast.storage import CheckpointError, changes

__all__ = ["WORKER_DIED", "Finished", "Job", "JobLog", "JobResult", "in_workers", "run_jobs"]

Job = dict[str, Any]
Work = Callable[[Job], list[dict[str, Any]]]

WORKER_DIED = "the worker process died, perhaps for lack of memory"
"""The error of a job that took its process with it."""


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        job: what the job was.
        rows: its results; empty if it failed.
        error: why it failed, a traceback for an exception; None if it did not.
        seconds: how long it took.
        identity: what the results depend on besides the job, see :class:`JobLog`.
    """

    job: Job
    rows: list[dict[str, Any]]
    error: str | None
    seconds: float
    identity: dict[str, Any] = field(default_factory=dict)


class JobLog:
    """A file of results, one JSON object per line, each on disk before the next job is counted.

    A line that a crash has cut off is dropped; its job counts as not run. Several processes may
    write a log, also on several machines if its folder is one that they share and its file system
    knows locks: each job is run by the process that has claimed it.

    Every result is kept with what it depends on. A file in which that has changed since is refused,
    so that results are not mixed with others that mean something else.

    Args:
        path: the file; created with its folder when the first result is written.
        identity: gives what the results of a job depend on besides the job, by name, as values that
            JSON knows; None is nothing.

    Raises:
        CheckpointError: when a line before the last one is damaged.
        ValueError: when results in the file are out of date; it names what has changed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "jobs.jsonl"
        >>> log = JobLog(path, lambda job: {"epochs": 8})
        >>> log.append(JobResult({"seed": 0}, [], None, 1.0, log.identity({"seed": 0})))
        >>> JobLog(path, lambda job: {"epochs": 8}).finished({"seed": 0})
        True
        >>> JobLog(path, lambda job: {"epochs": 16})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: 1 of 1 results are out of date, the first: 0 (epochs was 8 and is 16)...
    """

    def __init__(
        self, path: Path, identity: Callable[[Job], Mapping[str, Any]] | None = None
    ) -> None:
        self._path, self._identity = path, identity
        self._results: dict[str, JobResult] = {}
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._claims: dict[str, FileLock] = {}
        self._lines = 0
        self.refresh()

    @property
    def results(self) -> list[JobResult]:
        """The latest result of every job, in the order in which jobs were first recorded."""
        return list(self._results.values())

    def finished(self, job: Job) -> bool:
        """Whether the job has run without an error."""
        result = self._results.get(_key(job))
        return result is not None and result.error is None

    def identity(self, job: Job) -> dict[str, Any]:
        """What the results of a job depend on now."""
        found = {} if self._identity is None else self._identity(job)
        return json.loads(json.dumps(found))  # lists for tuples, as when it is read back

    def refresh(self) -> None:
        """Take over what other processes have recorded.

        Raises:
            CheckpointError, ValueError: See :class:`JobLog`.
        """
        if not self._path.exists():
            return
        with self._lock:
            lines = whole_lines(self._path)
        for number, line in enumerate(lines[self._lines :], self._lines + 1):
            try:
                self._keep(JobResult(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{self._path}, line {number}: damaged, not a result"
                ) from error
        if len(lines) > self._lines:
            self._lines = len(lines)
            self._check()

    def claim(self, job: Job) -> bool:
        """Whether this process may run a job: no other one is running it, or has run it since the
        log was last read. It is this process's until its result is recorded."""
        known = self._results.get(_key(job))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.blake2b(_key(job).encode(), digest_size=8).hexdigest()
        lock = FileLock(self._path.with_name(f"{self._path.name}-{digest}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._claims[_key(job)] = lock
        self.refresh()
        if self._results.get(_key(job)) is known:
            return True
        self._release(job)
        return False

    def append(self, result: JobResult) -> None:
        """Record a result."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self.refresh()  # which also removes a line that was cut off
            with open(self._path, "ab") as file:
                file.write(json.dumps(asdict(result)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._lines += 1
        self._keep(result)
        self._release(result.job)

    def _release(self, job: Job) -> None:
        lock = self._claims.pop(_key(job), None)
        if lock is not None:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def _check(self) -> None:
        finished = [result for result in self._results.values() if result.error is None]
        texts = [(r.job, changes(r.identity, self.identity(r.job))) for r in finished]
        stale = [(job, differences) for job, differences in texts if differences]
        if stale:
            job, differences = stale[0]
            told = shorten("; ".join(differences), 400, placeholder=" ...")
            raise ValueError(
                f"{self._path.parent}: {len(stale)} of {len(finished)} results are out of date, "
                f"the first: {' '.join(map(str, job.values()))} ({told}). Choose another folder, "
                "or delete this one to run all of them anew."
            )

    def _keep(self, result: JobResult) -> None:
        self._results[_key(result.job)] = result


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    log: JobLog,
    *,
    workers: int = 1,
    on_result: Callable[[JobResult], None] | None = None,
) -> None:
    """Run the jobs that the log has not as finished, each in one of some worker processes.

    Workers compute with one thread each, so that results do not depend on how many there are. A
    job that raises, or whose worker dies, is recorded with its error, and the others go on; it is
    run again the next time. Jobs that another process is running are left to it.

    Args:
        jobs: what tells a job from others, as values that JSON knows.
        work: called in a worker with the job; returns rows of results as values that JSON knows,
            all numbers finite. It is pickled, so it is a module's function or an object.
        log: where results are recorded.
        workers: number of processes.
        on_result: called after each job.
    """
    pending = (job for job in jobs if not log.finished(job) and log.claim(job))
    with closing(in_workers(pending, partial(_rows, work), workers=workers)) as results:
        for job, rows, error, seconds in results:
            result = JobResult(job, rows or [], error, round(seconds, 3), log.identity(job))
            log.append(result)
            if on_result is not None:
                on_result(result)
    log.refresh()


class Finished(NamedTuple):
    """A job that has run: what it gave, or None and the error, and how long it took."""

    job: Any
    result: Any
    error: str | None
    seconds: float


def in_workers(
    jobs: Iterable[Any], work: Callable[[Any], Any], *, workers: int = 1
) -> Generator[Finished, None, None]:
    """Run each job in one of some worker processes; gives them in the order in which they finish.

    Workers compute with one thread each, so that results do not depend on how many there are. A
    job that raises, or whose worker dies, gives its error.

    Args:
        jobs: asked for the next job when a worker is free, after results have been given: it may
            depend on them.
        work: called in a worker with the job. It is pickled, so it is a module's function or an
            object.
        workers: number of processes.
    """
    source, ended = iter(jobs), object()
    idle: list[ProcessPoolExecutor] = []
    running: dict[Future, tuple[Any, ProcessPoolExecutor, float]] = {}
    try:
        while True:
            while len(running) < workers and (job := next(source, ended)) is not ended:
                with _safe_path():  # the process starts with the first job, not before
                    worker = idle.pop() if idle else _new_worker()
                    future = worker.submit(_execute, work, job)
                running[future] = (job, worker, time.perf_counter())
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, worker, start = running.pop(future)
                try:
                    result, error, seconds = future.result()
                    idle.append(worker)
                except BrokenProcessPool:
                    result, error, seconds = None, WORKER_DIED, time.perf_counter() - start
                    worker.shutdown(wait=False)
                yield Finished(job, result, error, seconds)
    finally:
        for worker in [*idle, *(worker for _, worker, _ in running.values())]:
            worker.shutdown(wait=not running, cancel_futures=True)


def whole_lines(path: Path) -> list[bytes]:
    """Lines of a file that is only appended to; a last one that a crash has cut off is removed."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.splitlines()


def _key(job: Job) -> str:
    return json.dumps(job, sort_keys=True)


def _new_worker() -> ProcessPoolExecutor:
    """One process of its own: when it dies, it is known whose job it was."""
    # A forked copy of a process that has used threads may hang.
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_worker)


@contextmanager
def _safe_path() -> Iterator[None]:
    """New interpreters do not look for modules in the current folder.

    They are started with ``-c``, for which Python looks there first: a ``random.py`` or
    ``pickle.py`` that happens to lie there would be run, before the path of this process is taken
    over. Python 3.10 does not know the variable.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _start_worker() -> None:
    threadpool_limits(1)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, a killed parent would leave its workers waiting for jobs forever."""
    parent = parent_process()
    assert parent is not None, "only a worker runs this"
    connection.wait([parent.sentinel])
    os._exit(1)


def _execute(work: Callable[[Any], Any], job: Any) -> tuple[Any, str | None, float]:
    start, result, error = time.perf_counter(), None, None
    try:
        result = work(job)
    except Exception:
        error = traceback.format_exc()
    return result, error, time.perf_counter() - start


def _rows(work: Work, job: Job) -> list[dict[str, Any]]:
    rows = work(job)
    json.dumps(rows, allow_nan=False)  # what cannot be recorded is this job's error
    return rows
