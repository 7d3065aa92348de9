"""What the library runs on: versions, how the extension was built, devices."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from mcfa_fast._extension import load as load_extension

__all__ = ["environment"]


def environment() -> dict[str, str]:
    """What to know about this installation and machine, by name, in the order to show it.

    Example:
        >>> list(environment())[:3]
        ['mcfa_fast', 'Python', 'PyTorch']
    """
    build = load_extension().build_info()
    devices = ["cpu"] + [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count())
    ]
    return {
        "mcfa_fast": version("mcfa_fast"),
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
    except ModuleNotFoundError as error:
        if error.name == "faiss":
            return "not installed (pip install 'mcfa_fast[index]')"
        return f"does not load: {error}"
    except ImportError as error:
        return f"does not load: {error}"
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    kind = "GPU build" if hasattr(faiss, "StandardGpuResources") else "CPU build"
    return f"{faiss.__version__}, {kind}" + (f" with {gpus} GPU(s)" if gpus else "")
