"""What the subcommands share: options, messages, data sources and run folders."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

import mcfa_fast as mf
from mcfa_fast.storage.checkpoint import CheckpointError

console = Console()

DATA_FILE = "data.json"
"""In a run folder: which data the run was trained on."""

CLASSIFIER_FILE = "classifier.pt"
"""In a run folder: the trained classifier."""

_NAME_LENGTH = 120


class Preset(str, Enum):
    zsl = "zsl"
    gzsl = "gzsl"


class Mode(str, Enum):
    paper = "paper"
    reference = "reference"
    best = "best"


class Method(str, Enum):
    softmax = "softmax"
    nearest = "nearest"
    ensemble = "ensemble"


class ExportFormat(str, Enum):
    torchscript = "torchscript"
    export = "export"
    onnx = "onnx"


DataOption = Annotated[
    str, typer.Option(help="A dataset folder, an xlsa17 folder, the authors' folder, or 'digits'.")
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
MethodOption = Annotated[
    Optional[Method],
    typer.Option(
        help="Which classifier (default: the run's own, nearest for --mode best, else softmax)."
    ),
]
CalibrationOption = Annotated[
    Optional[float],
    typer.Option(help="Subtract this from the scores of seen classes (calibrated stacking)."),
]
EncoderOption = Annotated[
    str,
    typer.Option(
        metavar="PATH|NAME",
        help="A sentence-transformers model, always the same for all classes that are to be told "
        "apart.",
    ),
]
FeaturesOption = Annotated[
    Optional[str], typer.Option(help="Which features of the folder, as 512 for features_512.npy.")
]
SemanticsOption = Annotated[
    Optional[str], typer.Option(help="Which class descriptors of semantics.npz.")
]
SplitOption = Annotated[
    Optional[str],
    typer.Option(
        help="Seen/unseen split, as '20/10:0', or '20/10:seed=7' to draw one (default: the first "
        "of splits.json; without the file, classes without images are the unseen ones)."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]


@contextmanager
def errors_as_messages():
    """Turns what a user can cause into one line on stderr and exit code 1."""
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'options'}: {item['msg']}"
            for item in error.errors()
        )
        fail(problems)
    except (
        ValueError,
        TypeError,
        OSError,
        CheckpointError,
        ImportError,
        FloatingPointError,
    ) as error:
        fail(str(error))


def fail(message: str) -> None:
    text = f"[bold red]error:[/] {escape(message)}"
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def print_own_classifier(method: str) -> None:
    """Which of a run's classifiers the commands use that have an option --method."""
    text = f"predict, export and serve take {method} unless --method says otherwise"
    console.print(text, highlight=False, soft_wrap=True)


def parse_settings(settings: list[str]) -> dict[str, Any]:
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


def parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in parts(text)]
    except ValueError:
        raise ValueError(f"seeds: expected whole numbers with commas, got {text!r}") from None


def default_folder(*parts: str | None) -> Path:
    """The folder below runs/ whose name has all parts, without those that are None.

    Example:
        >>> default_folder("aid", "512", None, "20/10:0", "epochs=3").name
        'aid-512-20_10_0-epochs=3'
    """
    name = "-".join(part for part in parts if part)
    if len(name) > _NAME_LENGTH:  # longer ones, file systems refuse
        name = f"{name[:_NAME_LENGTH]}-{short_digest(name)}"
    return Path("runs") / re.sub(r"[^\w.,=+-]", "_", name)


def short_digest(text: str) -> str:
    """A few characters that tell texts apart."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def load_data(source: dict[str, Any]) -> mf.data.Dataset:
    return mf.data.load(source["data"], features=source["features"], semantics=source["semantics"])


def read_source(run_dir: Path) -> dict[str, Any]:
    try:
        return json.loads((run_dir / DATA_FILE).read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{run_dir}: expected the folder of a run, but it has no {DATA_FILE}"
        ) from None


def load_classifier(
    run_dir: Path,
    device: str = "cpu",
    *,
    method: Method | None = None,
    calibration: float | None = None,
) -> mf.MCFAClassifier:
    path = run_dir / CLASSIFIER_FILE
    if not path.exists():
        raise ValueError(
            f"{run_dir}: expected the folder of a finished run, but it has no {path.name}"
        )
    classifier = mf.MCFAClassifier.load(path, device=device)
    if method is not None:
        classifier.set_params(method=method.value)
    if calibration is not None:
        classifier.set_params(calibration=calibration)
    return classifier
