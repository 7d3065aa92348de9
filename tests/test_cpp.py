"""C++ programs without Python, built with CMake, get what Python gets from the same files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
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
def programs(tmp_path_factory):
    """Folder of the example programs, built from the sources of the repository."""
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
    return build / "examples" / "cpp"


@pytest.fixture
def scripted_losses(programs):
    return programs / "scripted_losses"


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


@pytest.fixture(scope="module")
def digits_model(run_dir, tmp_path_factory):
    """An exported classifier of digits, with names of its own, and what Python says with it."""
    classifier = mf.MCFAClassifier.load(run_dir / "classifier.pt").set_params(calibration=0.1)
    classifier.class_names_ = tuple(f"digit {name} ☺" for name in classifier.class_names_)
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    mf.export_classifier(classifier, path, head="nearest")
    return path


@pytest.mark.parametrize("rows", [1, 1797, 20000])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_cpp_program_classifies_as_python_does(programs, digits_model, tmp_path, rows, version):
    digits = mf.data.load("digits").features
    features = np.resize(digits, (rows, 64)).astype(np.float32)
    with (tmp_path / "features.npy").open("wb") as file:
        np.lib.format.write_array(file, features, version=version)
    printed = run(programs / "classify", digits_model, tmp_path / "features.npy")
    lines = [line.split("\t") for line in printed.splitlines()]
    predictor = mf.load_exported(digits_model)
    assert [int(line[0]) for line in lines] == list(range(rows))
    assert [line[1] for line in lines] == predictor.predict(features).tolist()
    scores = [float(line[2]) for line in lines]
    np.testing.assert_allclose(scores, predictor.scores(features).max(axis=1), atol=1e-6)


def npy(header, data=b"", start=b"\x93NUMPY\x01\x00"):
    return start + len(header).to_bytes(2, "little") + header.encode() + data


def described(descr="<f4", order="False", shape="(2, 64)"):
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


GOOD = np.zeros((2, 64), np.float32).tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is cut short"),
        (b"no array at all", "not a .npy file"),
        (npy("", start=b"\x93NUMPY\x04\x00"), "unknown version"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header is too long"),
        (npy(described())[:40], "it is cut short"),
        (npy(described("<f8"), GOOD * 2), "expected float32, got <f8"),
        (npy(described("|O"), GOOD), "expected float32, got |O"),
        (npy(described(order="True"), GOOD), "expected rows that are stored one after another"),
        (npy(described(shape="(128,)"), GOOD), "expected an array [N, F]"),
        (npy(described(shape="(2, 8, 8)"), GOOD), "expected an array [N, F]"),
        (npy(described(shape="(-2, 64)"), GOOD), "its shape is too large"),
        (npy(described(shape=f"({10**17}, {10**17})"), GOOD), "its shape is too large"),
        (npy(described(), GOOD[:-1]), "its size does not fit its shape"),
        (npy(described(), GOOD + b"x"), "its size does not fit its shape"),
        (npy(described(shape="(2, 0)")), "expected 64 columns, got 0"),
        (npy(described(shape="(1, 128)"), GOOD), "expected 64 columns, got 128"),
        (npy(described(), GOOD[:-4] + np.float32(np.nan).tobytes()), "NaN or infinity in rows 0"),
    ],
)
def test_cpp_program_names_bad_features(programs, digits_model, tmp_path, content, message):
    (tmp_path / "features.npy").write_bytes(content)
    failed(programs, digits_model, tmp_path / "features.npy", f"features.npy: {message}")


def failed(programs, model, features, message):
    """One line on stderr, nothing on stdout, exit code 1."""
    command = [programs / "classify", model, features]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_cpp_program_names_bad_models_and_absent_files(programs, digits_model, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 64), np.float32))
    torch.jit.script(torch.nn.Linear(64, 2)).save(tmp_path / "linear.pt")
    (tmp_path / "damaged.pt").write_bytes(digits_model.read_bytes()[:1000])
    failed(programs, tmp_path / "linear.pt", tmp_path / "a.npy", "not a file of mcfa-fast export")
    failed(programs, tmp_path / "damaged.pt", tmp_path / "a.npy", "")
    failed(programs, tmp_path / "nothing.pt", tmp_path / "a.npy", "nothing.pt")
    failed(programs, digits_model, tmp_path / "nothing.npy", "nothing.npy: cannot be opened")
    result = subprocess.run([programs / "classify"], capture_output=True, text=True)
    assert result.returncode == 2 and "usage" in result.stderr
