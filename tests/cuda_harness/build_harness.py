"""Builds the harness with the kernels into a shared library that torch.ops.load_library takes.

Operators are found by themselves: every folder of csrc with an op.h and CUDA sources.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "csrc"
# The operators get a namespace of their own, so that they live beside those of mcfa_fast._C.
# _FORTIFY_SOURCE would take a jump between the stacks of two fibers for an attack.
FLAGS = (
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-std=c++20",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-DMCFA_CUDA_HARNESS",
    "-Dmcfa_fast=mcfa_fast_harness",
)


def units() -> dict[str, list[Path]]:
    """The translation units by name, each of one or more sources: an operator's belong together."""
    found = {}
    for header in sorted(SOURCE.glob("*/op.h")):
        kernels = sorted(header.parent.rglob("*.cu"))
        if kernels:
            found[header.parent.name] = [header.with_suffix(".cpp"), *kernels]
    for source in [*sorted((SOURCE / "common").glob("*.cpp")), *sorted(HERE.glob("*.cpp"))]:
        found[f"{source.parent.name}_{source.stem}"] = [source]
    return found


def build(extra_flags: tuple[str, ...] = ()) -> Path:
    """Path of the library, built unless one of the same sources and PyTorch is there already."""
    files = sorted([*HERE.glob("*.*"), *SOURCE.rglob("*.*")])
    key = hashlib.sha256(f"{torch.__version__} {SOURCE} {extra_flags}".encode())
    for file in files:
        key.update(file.name.encode() + file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"mcfa_fast_harness_{os.getuid()}_{key.hexdigest()[:16]}"
    library = folder / "harness.so"
    if library.exists():
        return library
    folder.mkdir(mode=0o700, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    includes = [f"-I{path}" for path in (HERE, *cpp_extension.include_paths())]

    def compile_unit(unit: tuple[str, list[Path]]) -> str:
        name, sources = unit
        source = folder / f"{os.getpid()}_{name}.cpp"
        source.write_text("".join(f'#include "{path}"\n' for path in sources))
        target = source.with_suffix(".o")
        command = [compiler, *FLAGS, *extra_flags, *includes, "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return str(target)

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        objects = list(pool.map(compile_unit, units().items()))
    linked = folder / f"{os.getpid()}_harness.so"
    paths = [
        flag
        for path in cpp_extension.library_paths()
        for flag in (f"-L{path}", f"-Wl,-rpath,{path}")
    ]
    libraries = ["-lc10", "-ltorch", "-ltorch_cpu"]
    command = [compiler, "-shared", *extra_flags, *objects, *paths, *libraries, "-o", str(linked)]
    subprocess.run(command, check=True)
    linked.rename(library)
    return library


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
