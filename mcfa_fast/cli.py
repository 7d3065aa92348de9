"""The command ``mcfa-fast``: train, evaluate and use zero-shot classifiers from the shell."""

from __future__ import annotations

import csv
import io
import json
import platform
import tempfile
import time
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Optional

import numpy as np
import torch
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

import mcfa_fast as mf
from mcfa_fast._extension import load as load_extension
from mcfa_fast.data.files import read_npy
from mcfa_fast.evaluation import Evaluation, evaluate
from mcfa_fast.experiment import run as run_experiment
from mcfa_fast.training.checkpoint import CheckpointError, write_atomically

app = typer.Typer(
    name="mcfa-fast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Zero-shot classification with MCFA: classify images of classes never seen in training.",
    epilog="Start with `mcfa-fast demo`, which needs no data. Exit codes: 0 success, 1 the data, "
    "a file or an option's value is bad, 2 wrong usage.",
)
console = Console()

_DATA_FILE = "data.json"  # in a run folder: which data the run was trained on


class Preset(str, Enum):
    zsl = "zsl"
    gzsl = "gzsl"


class Mode(str, Enum):
    paper = "paper"
    reference = "reference"


class Method(str, Enum):
    softmax = "softmax"
    nearest = "nearest"


DataOption = Annotated[
    str, typer.Option(help="A dataset folder, an xlsa17 folder, the authors' folder, or 'digits'.")
]
FeaturesOption = Annotated[
    Optional[str], typer.Option(help="Which features of the folder, as 512 for features_512.npy.")
]
SemanticsOption = Annotated[
    Optional[str], typer.Option(help="Which class descriptors of semantics.npz.")
]
SplitOption = Annotated[
    Optional[str],
    typer.Option(help="Seen/unseen split, as '20/10:0' (default: the first), or '20/10:seed=7'."),
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]


@contextmanager
def _errors_as_messages():
    """Turns what a user can cause into one line on stderr and exit code 1."""
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'options'}: {item['msg']}"
            for item in error.errors()
        )
        _fail(problems)
    except (
        ValueError,
        TypeError,
        OSError,
        CheckpointError,
        ImportError,
        FloatingPointError,
    ) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


@app.command()
def demo(
    run_dir: Annotated[
        Optional[Path], typer.Option(help="Keep the runs here (default: a temporary folder).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One epoch only, to see it work.")] = False,
) -> None:
    """Train on seven handwritten digits and recognise the other three from their description.

    Runs both tasks: zero-shot (ZSL), where only unseen digits are candidates, and generalized
    zero-shot (GZSL), where all ten are.
    """
    with _errors_as_messages(), tempfile.TemporaryDirectory() as temporary:
        digits = mf.data.load("digits")
        folder = run_dir or Path(temporary)
        for task in ("zsl", "gzsl"):
            # The paper's balance between the reconstruction, a sum over features, and the KL term,
            # kept for 64 pixels instead of 512 features.
            config = mf.MCFAConfig.paper(
                task, kl_weight=64 / 512, **({"epochs": 1} if quick else {})
            )
            split = digits.split("7/3:0", generalized=task == "gzsl")
            names = ", ".join(digits.class_names[c] for c in split.unseen_classes)
            console.print(f"\n[bold]{task.upper()}[/]: digits {names} are never seen in training.")
            _train(config, digits, split.name, folder / task, "cpu")


@app.command()
def train(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    split: SplitOption = None,
    preset: Annotated[
        Preset, typer.Option(help="Table I settings for zero-shot or generalized zero-shot.")
    ] = Preset.zsl,
    mode: Annotated[
        Mode, typer.Option(help="The paper's equations, or what the authors' public code does.")
    ] = Mode.paper,
    settings: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change any option of MCFAConfig; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random stream.")] = 0,
    run_dir: Annotated[
        Optional[Path],
        typer.Option(help="Folder of the run; a killed run resumes there (default: below runs/)."),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Train on the seen classes of a split, then classify and evaluate.

    Leaves a run folder with configuration, metrics (CSV and TensorBoard), checkpoint, trained
    classifier and results. Calling it again with a killed run's folder resumes the run.
    """
    with _errors_as_messages():
        overrides = {"seed": seed} | _parse_settings(settings or [])
        config = getattr(mf.MCFAConfig, mode.value)(preset.value, **overrides)
        source = {"data": data, "features": features, "semantics": semantics}
        dataset = _load(source)
        name = dataset.split(split, generalized=config.task == "gzsl").name
        if run_dir is None:
            parts = (dataset.name, name, preset.value, mode.value, f"seed{config.seed}")
            run_dir = Path("runs") / "-".join(parts).replace("/", "_").replace(":", "_")
        _train(config, dataset, name, run_dir, device, source)


@app.command(name="evaluate")
def evaluate_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Optional[str], typer.Option(help="Where the run's data lies now, if it has moved.")
    ] = None,
    split: Annotated[Optional[str], typer.Option(help="Another split of the same classes.")] = None,
    calibration: Annotated[
        Optional[float],
        typer.Option(help="Subtract this from the scores of seen classes (calibrated stacking)."),
    ] = None,
    device: DeviceOption = "cpu",
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print every class.")] = False,
) -> None:
    """Evaluate the classifiers of a run again, on the test images of its split."""
    with _errors_as_messages():
        classifier = _load_classifier(run_dir, device)
        source = _read_source(run_dir)
        dataset = _load(source | ({"data": data} if data else {}))
        generalized = classifier.config_.task == "gzsl"
        chosen = dataset.split(split or source["split"], generalized=generalized)
        if calibration is not None:
            classifier.set_params(calibration=calibration)
        results = {
            method.value: evaluate(classifier.set_params(method=method.value), dataset, chosen)
            for method in Method
        }
        console.print(_summary(results))
        if per_class:
            console.print(_class_table(results))


@app.command()
def predict(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    features: Annotated[Path, typer.Argument(help="Features to classify: a .npy file [N, F].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")],
    method: Annotated[Method, typer.Option(help="Which classifier.")] = Method.softmax,
    top: Annotated[int, typer.Option(min=1, help="How many classes to write for each row.")] = 1,
    calibration: Annotated[
        Optional[float], typer.Option(help="Subtract this from the scores of seen classes.")
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Classify a file of features: writes row, rank, class and score to a CSV file."""
    with _errors_as_messages():
        classifier = _load_classifier(run_dir, device)
        classifier.set_params(method=method.value)
        if calibration is not None:
            classifier.set_params(calibration=calibration)
        rows = read_npy(features, memory_map=True)
        write_atomically(output, lambda file: _write_predictions(file, classifier, rows, top))
        console.print(f"{len(rows)} rows classified with {method.value}, written to {output}")


@app.command()
def info() -> None:
    """Print versions, how the extension was built, CPU capability, FAISS and devices."""
    table = Table(title=f"mcfa_fast {mf.__version__}", show_header=False, title_justify="left")
    for name, value in _environment().items():
        table.add_row(name, value)
    console.print(table)


def _train(
    config: mf.MCFAConfig,
    dataset: mf.data.Dataset,
    split: str,
    run_dir: Path,
    device: str,
    source: dict[str, Any] | None = None,
) -> None:
    if source is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        content = json.dumps(source | {"split": split}, indent=2) + "\n"
        write_atomically(run_dir / _DATA_FILE, lambda file: file.write(content.encode()))
    if config.sampler == "episodic" and device == "cpu":
        # Batches of some dozen instances are too small to share out: threads would only wait.
        torch.set_num_threads(1)
    start = time.perf_counter()
    results = run_experiment(
        config, dataset, split, run_dir=run_dir, device=device, progress=console.is_terminal
    )
    console.print(_summary(results))
    seconds = time.perf_counter() - start
    kept = f"; everything about it is in {run_dir}" if source is not None else ""
    console.print(f"The run took {seconds:.0f} s{kept}", highlight=False, soft_wrap=True)


def _parse_settings(settings: list[str]) -> dict[str, Any]:
    parsed = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise typer.BadParameter(f"expected KEY=VALUE, but got {setting!r}", param_hint="--set")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return parsed


def _load(source: dict[str, Any]) -> mf.data.Dataset:
    return mf.data.load(source["data"], features=source["features"], semantics=source["semantics"])


def _read_source(run_dir: Path) -> dict[str, Any]:
    try:
        return json.loads((run_dir / _DATA_FILE).read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{run_dir}: expected the folder of a run, but it has no {_DATA_FILE}"
        ) from None


def _load_classifier(run_dir: Path, device: str) -> mf.MCFAClassifier:
    path = run_dir / "classifier.pt"
    if not path.exists():
        raise ValueError(
            f"{run_dir}: expected the folder of a finished run, but it has no {path.name}"
        )
    return mf.MCFAClassifier.load(path, device=device)


def _write_predictions(
    file: BinaryIO, classifier: mf.MCFAClassifier, features: np.ndarray, top: int
) -> None:
    """The CSV file of `predict`, a chunk of rows at a time."""
    chunk = 65536
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(["row", "rank", "class", "score"])
    for start in range(0, len(features), chunk):
        scores = classifier.predict_proba(features[start : start + chunk])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        for row, columns in enumerate(best):
            for rank, column in enumerate(columns, 1):
                name = classifier.class_names_[classifier.classes_[column]]
                writer.writerow([start + row, rank, name, f"{scores[row, column]:.6g}"])
    text.detach()  # flushes; the file itself stays open for the caller


def _summary(results: dict[str, Evaluation]) -> Table:
    first = next(iter(results.values()))
    generalized = first.generalized is not None
    table = Table(title=f"{first.dataset}, split {first.split}: mean per-class accuracy in %")
    columns = ["S seen", "U unseen", "H", "AUSUC", "calibration"] if generalized else []
    notes = ["note"] if any(result.note for result in results.values()) else []
    for column in ("classifier", "ZSL", *columns, *notes):
        table.add_column(column, justify="left" if column in ("classifier", "note") else "right")
    for method, result in results.items():
        row = [method, f"{100 * result.accuracy:.1f}"]
        if result.generalized is not None:
            values = result.generalized
            row += [f"{100 * v:.1f}" for v in (values.seen, values.unseen, values.harmonic)]
            row += [f"{values.ausuc:.3f}", f"{values.calibration:.3g}"]
        table.add_row(*row, *([result.note] if notes else []))
    return table


def _class_table(results: dict[str, Evaluation]) -> Table:
    table = Table(title="Accuracy per class in %")
    table.add_column("class")
    table.add_column("images", justify="right")
    for method in results:
        table.add_column(method, justify="right")
    for rows in zip(*(result.classes for result in results.values()), strict=True):
        table.add_row(
            rows[0].name, str(rows[0].count), *(f"{100 * row.accuracy:.1f}" for row in rows)
        )
    return table


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


if __name__ == "__main__":
    app()
