"""``mcfa-fast info``."""

from __future__ import annotations

import platform

import torch
from rich.table import Table

import mcfa_fast as mf
from mcfa_fast._extension import load as load_extension
from mcfa_fast.cli.common import console


def info() -> None:
    """Print versions, how the extension was built, CPU capability, FAISS and devices."""
    table = Table(title=f"mcfa_fast {mf.__version__}", show_header=False, title_justify="left")
    for name, value in _environment().items():
        table.add_row(name, value)
    console.print(table)


def _environment() -> dict[str, str]:
    build = load_extension().build_info()
    devices = ["cpu"] + [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count())
    ]
    return {
        "Python": platform.python_version(),
        "PyTorch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "extension": f"built for PyTorch {build['torch']} with {build['compiler']}",
        "CUDA kernels": "not built" if build["cuda"] is None else f"CUDA {build['cuda']}",
        "CPU, extension": f"{build['simd']}, {'with' if build['openmp'] else 'without'} OpenMP",
        "CPU, PyTorch": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "FAISS": _faiss_kind(),
        "devices": ", ".join(devices),
    }


def _faiss_kind() -> str:
    try:
        import faiss
    except ImportError:
        return "not installed (pip install faiss-cpu)"
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    kind = "GPU build" if hasattr(faiss, "StandardGpuResources") else "CPU build"
    return f"{faiss.__version__}, {kind}" + (f" with {gpus} GPU(s)" if gpus else "")
