"""Loads a CUDA build of the extension, GPU or none, and checks that every operator has its kernel.

Usage: check_cuda.py FOLDER, where FOLDER/mcfa_fast holds the extension.
"""

import importlib.util
import sys
from pathlib import Path

import torch


def main(folder: str) -> None:
    (path,) = Path(folder, "mcfa_fast").glob("_C*.so")
    spec = importlib.util.spec_from_file_location("mcfa_fast._C", path)
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    info = extension.build_info()
    print(f"{path.name}: {info}")
    if info["cuda"] is None:
        raise SystemExit("the extension was built without CUDA")
    operators = sorted(
        name for name in torch._C._dispatch_get_all_op_names() if name.startswith("mcfa_fast::")
    )
    if not operators:
        raise SystemExit("the extension registers no operators")
    for name in operators:
        for key in ("CPU", "CUDA", "Meta"):
            if not torch._C._dispatch_has_kernel_for_dispatch_key(name, key):
                raise SystemExit(f"{name} has no kernel for {key}")
    print(f"all of {', '.join(operators)} have CUDA kernels")


if __name__ == "__main__":
    main(sys.argv[1])
