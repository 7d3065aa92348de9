"""Runs every benchmark, prints reached against target, writes the figures and draws them.

    python benchmarks/run.py            # about ten minutes on two cores
    python benchmarks/run.py --quick    # tiny shapes: whether everything still works

Results go to ``benchmarks/results/<machine>-<version>.json`` and the plots beside it. Run it on an
otherwise idle machine: everything it says is a ratio within the run, but two cores are two cores.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import report
import scaling
import shapes
import typer
from rich.console import Console

HERE = Path(__file__).resolve().parent


def main(
    quick: Annotated[bool, typer.Option(help="Tiny shapes, one thread, no compiling.")] = False,
    results: Annotated[Path, typer.Option(help="Where to write.")] = HERE / "results",
) -> None:
    """Run every benchmark and report."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    started = time.perf_counter()
    records = run_pytest(quick)
    for record in scaling.measure(quick):
        records.append(record)
        for name, seconds in record["seconds"].items():
            threads = record["threads"]
            console.print(f"{name}, N = {record['n']:,}, threads {threads}: {seconds:.4g} s")
    about = {**describe(), "quick": quick, "minutes": (time.perf_counter() - started) / 60}
    summary = {
        "about": about,
        "targets": report.judged(records),
        "exponents": report.exponents(records),
        "records": records,
    }
    stem = f"{slug(about['machine'])}-{about['version']}{'-quick' if quick else ''}"
    results.mkdir(parents=True, exist_ok=True)
    written = [results / f"{stem}.json"]
    written[0].write_text(json.dumps(summary, indent=1) + "\n")
    report.show(records, console)
    if importlib.util.find_spec("matplotlib") is None:
        console.print("No plots: matplotlib is not installed")
    else:
        import plots

        title = f"{about['machine']}, mcfa_fast {about['version']}, PyTorch {about['torch']}"
        written += plots.draw(records, results, stem, title)
    console.print(f"{about['minutes']:.1f} minutes; wrote", *(str(path) for path in written))


def run_pytest(quick: bool) -> list[dict[str, Any]]:
    """The records of the ``bench_*.py`` files.

    Raises:
        SystemExit: A contender is wrong, or a benchmark failed in another way.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "benchmarks.json"
        files = sorted(path.name for path in HERE.glob("bench_*.py"))
        options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "--benchmark-quiet"]
        command = [sys.executable, "-m", "pytest", *files, *options]
        command += [f"--benchmark-json={output}", *(["--quick"] if quick else ["-v"])]
        # From this folder, so that the installed package is measured, not the sources beside it.
        status = subprocess.run(command, cwd=HERE).returncode
        if status:
            raise SystemExit(status)
        return [entry["extra_info"] for entry in json.loads(output.read_text())["benchmarks"]]


def describe() -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "machine": f"{cpu_model()}, {os.cpu_count()} cores",
        "instructions": instructions(),
        "version": importlib.metadata.version("mcfa_fast"),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "threads": list(shapes.THREADS),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    match = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Those of the vector extensions that matter here which the processor has."""
    known = ("avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "asimd", "sve")
    flags = set(re.findall(r"\w+", _cpuinfo()))
    return [name for name in known if name in flags]


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def commit() -> str | None:
    """The checked-out commit, marked where files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None


def slug(text: str) -> str:
    """``text`` as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


if __name__ == "__main__":
    typer.run(main)
