"""What the CUDA compiler says of the kernels: registers, stack, spills. Needs nvcc, but no GPU."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
INSTANCES = sorted((HERE / "instances").glob("*.cu"))
SOURCE = HERE.parents[1] / "csrc"
# The form that Hopper's own instructions need, too.
ARCHITECTURES = {"sm_80": "arch=compute_80,code=sm_80", "sm_90a": "arch=compute_90a,code=sm_90a"}


def find_nvcc():
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home, "bin")))


def resource_report(nvcc, architecture, instances, folder):
    """{kernel: (registers, stack frame, spill stores, spill loads)}, sizes in bytes."""
    command = [nvcc, "-std=c++17", "-O3", "-cubin", "-Xptxas", "-v", "-gencode", architecture]
    result = subprocess.run(
        [*command, str(instances), "-o", str(folder / "instances.cubin")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    # What the compiler warns of when it has to take wgmma instructions one after the other.
    assert "wgmma" not in result.stderr
    report = {}
    for part in result.stderr.split("Compiling entry function")[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        memory = re.search(r"(\d+) bytes stack frame, (\d+) .*stores, (\d+) .*loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        report[name] = (int(registers[1]), *(int(size) for size in memory.groups()))
    return report


@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc: the compiler's report cannot be had")
@pytest.mark.parametrize("instances", INSTANCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_registers(architecture, instances, tmp_path, record_property):
    report = resource_report(find_nvcc(), ARCHITECTURES[architecture], instances, tmp_path)
    for name, sizes in sorted(report.items()):
        record_property(name, sizes)
        print(f"{sizes[0]:4d} registers {sizes[1:]} {name}")
    spilling = {name: sizes for name, sizes in report.items() if sizes[2] or sizes[3]}
    assert not spilling
    # Kernels that fill the registers may have no array that is indexed at run time.
    full = {name: sizes for name, sizes in report.items() if "mma_" in name or "hopper_" in name}
    assert all(stack == 0 for _, stack, _, _ in full.values())
    missing = [name for name in kernels_of(instances.stem) if not any(name in k for k in report)]
    assert not missing


def kernels_of(operator):
    sources = (SOURCE / operator).rglob("*.cuh")
    pattern = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^{;]*?\)\s+)?(\w+_kernel)\(")
    return [name for source in sources for name in pattern.findall(source.read_text())]


def test_every_operator_with_kernels_has_its_instances():
    operators = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.cu")}
    assert operators == {path.stem for path in INSTANCES}
    assert all(kernels_of(operator) for operator in operators)
