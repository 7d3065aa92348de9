"""Builds the harness with the kernels into a shared library that torch.ops.load_library takes."""

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
UNITS = (
    "kernels.cpp",
    "operators.cpp",
    "alignment_operators.cpp",
    "divergence_operators.cpp",
    "reconstruction_operators.cpp",
    "reparameterization_operators.cpp",
    "harness.cpp",
)
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


def build() -> Path:
    """Path of the library, built unless one of the same sources and PyTorch is there already."""
    files = sorted([*HERE.glob("*.*"), *SOURCE.rglob("*.*")])
    key = hashlib.sha256(torch.__version__.encode())
    for file in files:
        key.update(file.name.encode() + file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"mcfa_fast_harness_{os.getuid()}_{key.hexdigest()[:16]}"
    library = folder / "harness.so"
    if library.exists():
        return library
    folder.mkdir(mode=0o700, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    includes = [f"-I{path}" for path in (HERE, *cpp_extension.include_paths())]

    def compile_unit(unit: str) -> str:
        target = folder / f"{os.getpid()}_{unit}.o"
        # As C++ although two of the files included are named .cu.
        command = [
            compiler,
            *FLAGS,
            *includes,
            "-x",
            "c++",
            "-c",
            str(HERE / unit),
            "-o",
            str(target),
        ]
        subprocess.run(command, check=True)
        return str(target)

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_unit, UNITS))
    linked = folder / f"{os.getpid()}_harness.so"
    paths = [
        flag
        for path in cpp_extension.library_paths()
        for flag in (f"-L{path}", f"-Wl,-rpath,{path}")
    ]
    libraries = ["-lc10", "-ltorch", "-ltorch_cpu"]
    subprocess.run(
        [compiler, "-shared", *objects, *paths, *libraries, "-o", str(linked)], check=True
    )
    linked.rename(library)
    return library


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
