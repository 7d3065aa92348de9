"""Builds the extension mcfa_fast._C; everything else about the package is in pyproject.toml.

MCFA_FAST_CUDA=on|off forces a build with or without CUDA (default: auto), TORCH_CUDA_ARCH_LIST
chooses the GPU architectures, MAX_JOBS the number of compilers at once.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from torch.utils import cpp_extension

CXX_FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-sign-compare",  # as PyTorch's headers say themselves, which is lost in precompiled ones
]
# Machine code for Ampere and Hopper; other GPUs of compute capability 8 run the former, later ones
# compile its PTX when they first load it.
DEFAULT_ARCHITECTURES = "8.0+PTX;9.0a"


def use_cuda() -> bool:
    """Decides whether to build the CUDA kernels, and prints why."""
    wish = os.environ.get("MCFA_FAST_CUDA", "auto")
    if wish not in ("auto", "on", "off"):
        raise SystemExit(f"MCFA_FAST_CUDA: expected 'auto', 'on' or 'off', but got {wish!r}")
    toolkit, torch_cuda = cpp_extension.CUDA_HOME, cpp_extension.torch.version.cuda
    if wish == "off":
        decision, reason = False, "MCFA_FAST_CUDA=off"
    elif torch_cuda is None:
        decision, reason = False, "the installed PyTorch is a CPU build"
    elif toolkit is None:
        decision, reason = False, "no CUDA toolkit was found (set CUDA_HOME)"
    else:
        decision, reason = True, f"PyTorch has CUDA {torch_cuda}, and the toolkit is {toolkit}"
    if wish == "on" and not decision:
        raise SystemExit(f"MCFA_FAST_CUDA=on, but {reason}")
    print(f"mcfa_fast: building {'with' if decision else 'without'} CUDA: {reason}", flush=True)
    return decision


def extension():
    cuda = use_cuda()
    sources = sorted(str(path) for path in Path("csrc").rglob("*.cpp"))
    flags = {"cxx": CXX_FLAGS}
    if not cuda:
        return cpp_extension.CppExtension(
            "mcfa_fast._C", sources, extra_compile_args=flags, extra_link_args=["-fopenmp"]
        )
    architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
    sources += sorted(str(path) for path in Path("csrc").rglob("*.cu"))
    flags["nvcc"] = ["-O3", "-lineinfo", "-Xcompiler", "-fvisibility=hidden"]
    return cpp_extension.CUDAExtension(
        "mcfa_fast._C",
        sources,
        define_macros=[
            ("MCFA_CUDA_VERSION", f'"{cpp_extension.torch.version.cuda}"'),
            ("MCFA_CUDA_ARCHITECTURES", f'"{architectures}"'),
        ],
        extra_compile_args=flags,
        extra_link_args=["-fopenmp"],
    )


class BuildExtension(cpp_extension.BuildExtension):
    """Compiles what all C++ files read first once for all of them.

    GCC takes the result wherever all flags are the same. Other compilers, and GCC where this could
    not be done, read the header that lies beside it.
    """

    def build_extensions(self):
        (extension,) = self.extensions
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        header = shutil.copy(Path("csrc", "common", "precompiled.h"), folder)
        includes = [f"-I{path}" for path in (*extension.include_dirs, *self.compiler.include_dirs)]
        subprocess.run(
            [
                *shlex.split(cpp_extension.get_cxx_compiler()),
                *self.compiler.compiler_so[1:],
                *CXX_FLAGS,
                *includes,
                *("-x", "c++-header", header, "-o", f"{header}.gch"),
            ],
            stderr=subprocess.DEVNULL,
        )
        extension.extra_compile_args["cxx"] = [*CXX_FLAGS, "-include", header]
        super().build_extensions()


setup(ext_modules=[extension()], cmdclass={"build_ext": BuildExtension})
