"""A C++ program without Python, built with CMake, gets the same losses from a scripted module."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mcfa_fast as mf

SOURCE = Path(__file__).resolve().parents[1]


def run(*command, **options):
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def scripted_losses(tmp_path_factory):
    """The example program, built from the sources of the repository."""
    build = tmp_path_factory.mktemp("cpp")
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=tools)
    environment = os.environ | {"PATH": tools}
    run(
        cmake,
        "-S",
        SOURCE,
        "-B",
        build,
        "-G",
        "Ninja",
        "-DMCFA_FAST_EXAMPLES=ON",
        f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
        env=environment,
    )
    run(cmake, "--build", build, "--parallel", "2", env=environment)
    return build / "examples" / "cpp" / "scripted_losses"


class Inputs(torch.nn.Module):
    def __init__(self, visual, semantic, labels):
        super().__init__()
        self.visual, self.semantic, self.labels = visual, semantic, labels

    def forward(self):
        return self.visual, self.semantic, self.labels


@pytest.mark.parametrize("positives", ["out", "in"])
def test_cpp_program_gets_the_numbers_that_python_gets(scripted_losses, tmp_path, positives):
    generator = torch.Generator().manual_seed(0)
    visual = torch.randn(300, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    semantic = torch.randn(9, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(0, 9, (300,), generator=generator)
    losses = mf.ContrastiveLosses(0.2, positives=positives)
    torch.jit.script(losses).save(tmp_path / "losses.pt")
    torch.jit.script(Inputs(visual.detach(), semantic.detach(), labels)).save(
        tmp_path / "inputs.pt"
    )

    printed = run(scripted_losses, tmp_path / "losses.pt", tmp_path / "inputs.pt")
    got = {name: float(value) for name, value in map(str.split, printed.splitlines())}

    values = losses(visual, semantic, labels)
    sum(values).backward()
    expected = {name: value.item() for name, value in zip(values._fields, values, strict=True)}
    expected["grad_visual"] = visual.grad.norm().item()
    expected["grad_semantic"] = semantic.grad.norm().item()
    assert got == pytest.approx(expected, rel=1e-8)


def test_cpp_program_turns_bad_input_into_an_exception(scripted_losses, tmp_path):
    torch.jit.script(mf.ContrastiveLosses(0.2)).save(tmp_path / "losses.pt")
    inputs = Inputs(torch.randn(4, 3), torch.randn(2, 3), torch.tensor([0, 1, 2, 0]))
    torch.jit.script(inputs).save(tmp_path / "inputs.pt")
    result = subprocess.run(
        [scripted_losses, tmp_path / "losses.pt", tmp_path / "inputs.pt"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "`labels` to be a class in [0, 2), but got 2 at index 2" in result.stderr
