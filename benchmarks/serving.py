"""Requests per second and latency of ``mcfa-fast serve``, on this machine's own address.

    python benchmarks/serving.py                      # about a minute
    python benchmarks/serving.py --seconds 0.2        # whether everything still works

Clients and server share the machine's processors. Every answer is checked. Writes
``benchmarks/results/serve.md``.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from run import HERE, cpu_model

import mcfa_fast as mf

FEATURES, CLASSES, SEEN, DESCRIPTOR = 512, 30, 20, 384
HEADERS = {"json": "application/json", "npy": "application/octet-stream"}


class Case(NamedTuple):
    kind: str
    rows: int
    clients: int


CASES = [
    Case("json", 1, 1),
    Case("json", 1, 8),
    Case("npy", 1, 8),
    Case("json", 100, 8),
    Case("npy", 100, 8),
    Case("npy", 1000, 8),
]


class Result(NamedTuple):
    rate: float
    """Requests per second."""
    p50: float
    """Milliseconds."""
    p99: float
    """Milliseconds."""


def main(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each case.")] = 8.0,
    results: Annotated[Path, typer.Option(help="Where to write.")] = HERE / "results",
) -> None:
    """Measure the service."""
    rng = np.random.default_rng(0)
    images = rng.random((1000, FEATURES), dtype=np.float32)
    options = {"epochs": 1, "softmax.epochs": 1}
    classifier = mf.ZeroShotClassifier("mcfa", task="gzsl", options=options).fit(
        images, np.arange(1000) % SEEN, rng.random((CLASSES, DESCRIPTOR))
    )
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier.pt")
        with serving(Path(folder)) as (process, port):
            drive(port, classifier, images, Case("npy", 1000, 8), seconds / 4)  # warms it up
            before = resident(process)
            table = {case: drive(port, classifier, images, case, seconds) for case in CASES}
            growth = resident(process) - before
    text = report(table, before, growth, seconds)
    results.mkdir(parents=True, exist_ok=True)
    (results / "serve.md").write_text(text)
    print(text)


@contextmanager
def serving(run_dir: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """The command on a free port."""
    command = [sys.executable, "-m", "mcfa_fast", "serve", str(run_dir), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        match = re.search(r":(\d+)\s*$", line)
        if match is None:
            raise SystemExit(f"the service did not start: {line}")
        yield process, int(match[1])
    finally:
        process.terminate()
        process.wait()


def drive(
    port: int, classifier: mf.ZeroShotClassifier, images: np.ndarray, case: Case, seconds: float
) -> Result:
    """All clients of a case at once, each on one connection, one request after the other."""
    features = images[: case.rows]
    expected = [[f"class_{index}"] for index in classifier.predict(features)]
    body = encoded(features, case.kind)
    durations: list[float] = []
    failures: list[BaseException] = []
    stop = time.perf_counter() + seconds

    def client() -> None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {"content-type": HEADERS[case.kind]}
            while (start := time.perf_counter()) < stop:
                connection.request("POST", "/classify", body, headers)
                content = connection.getresponse().read()
                durations.append(time.perf_counter() - start)
                if json.loads(content)["classes"] != expected:
                    raise AssertionError(f"{case}: wrong answer {content[:200]!r}")
            connection.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(case.clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if failures:
        raise failures[0]
    cuts = quantiles(durations, n=100, method="inclusive")
    return Result(len(durations) / elapsed, 1e3 * cuts[49], 1e3 * cuts[98])


def encoded(features: np.ndarray, kind: str) -> bytes:
    if kind == "json":
        return json.dumps({"features": features.round(4).astype(float).tolist()}).encode()
    buffer = io.BytesIO()
    np.save(buffer, features)
    return buffer.getvalue()


def resident(process: subprocess.Popen) -> int:
    """Bytes of memory that the process holds now (on Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(table: dict[Case, Result], before: int, growth: int, seconds: float) -> str:
    lines = [
        "# The HTTP service",
        "",
        f"`mcfa-fast serve` with MCFA's softmax head: {FEATURES} features, {CLASSES} classes. "
        f"Measured by `python benchmarks/serving.py` ({seconds:g} s per row) on {cpu_model()} with "
        f"{os.cpu_count()} cores, which the clients share; mcfa_fast {mf.__version__}, PyTorch "
        f"{torch.__version__}. Every answer was checked.",
        "",
        "| body | rows per request | clients | requests/s | rows/s | p50 | p99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, result in table.items():
        rows = f"{case.rows * result.rate:,.0f}"
        lines.append(
            f"| {case.kind} | {case.rows:,} | {case.clients} | {result.rate:,.0f} | {rows} | "
            f"{result.p50:.1f} ms | {result.p99:.1f} ms |"
        )
    requests = sum(seconds * result.rate for result in table.values())
    mib = 2**20
    lines += [
        "",
        f"The server held {before / mib:.0f} MiB before these requests (about {requests:,.0f}) and "
        f"{(before + growth) / mib:.0f} MiB after them.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
