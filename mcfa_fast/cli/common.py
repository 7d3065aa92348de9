"""What the subcommands share: options, messages, data sources and run folders."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.classifiers.transductive_view import TransductiveClassifier
from mcfa_fast.data import Dataset, load
from mcfa_fast.storage import CheckpointError
from mcfa_fast.systems.registry import RECOMMENDED, SYSTEMS
from mcfa_fast.training.ranks import RankError

DATA_FILE = "data.json"
"""In a run folder: which data the run was trained on."""

CLASSIFIER_FILE = "classifier.pt"
"""In a run folder: the trained classifier."""

_NAME_LENGTH = 120


def printable(text: str) -> str:
    """Text whose control characters, which could steer a terminal, are written out.

    Example:
        >>> print(printable("red\x1b[31m"))
        red\\x1b[31m
    """
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


class _Console(Console):
    """A console to which all text is data: a class may be called ``[/red]`` or ``:car:``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


console = _Console()
_errors = _Console(stderr=True)


class Task(str, Enum):
    zsl = "zsl"
    gzsl = "gzsl"


class ExportFormat(str, Enum):
    torchscript = "torchscript"
    export = "export"
    onnx = "onnx"


DataOption = Annotated[
    str, typer.Option(help="A dataset folder, an xlsa17 folder, the authors' folder, or 'digits'.")
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
SystemOption = Annotated[
    Optional[str],
    typer.Option(
        metavar="NAME",
        help=f"What to train: {', '.join(SYSTEMS)} (default: {RECOMMENDED}).",
    ),
]
TaskOption = Annotated[
    Optional[Task],
    typer.Option(
        help="Zero-shot (zsl, the default): images of unseen classes among these. Generalized "
        "zero-shot (gzsl): all images among all classes."
    ),
]
PresetOption = Annotated[
    Optional[str],
    typer.Option(
        metavar="NAME",
        help="Options of the system to start from (default: its first preset; an unknown name is "
        "answered with all).",
    ),
]
HeadOption = Annotated[
    Optional[str],
    typer.Option(
        metavar="NAME",
        help="Which head answers: scores, softmax, nearest or ensemble, as the system has them "
        "(default: that of the preset or run).",
    ),
]
SettingsOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change an option of the system or its training (epochs=3), of a head "
        "(softmax.epochs=5) or of selection (selection=grid); repeatable.",
    ),
]
CalibrationOption = Annotated[
    Optional[float],
    typer.Option(
        help="Subtract this from the scores that the answering head gives seen classes "
        "(calibrated stacking)."
    ),
]
TransductiveOption = Annotated[
    bool,
    typer.Option(
        "--transductive",
        metavar="",
        help="Classify all images together, as one set whose structure corrects the scores.",
    ),
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
def errors_as_messages() -> Iterator[None]:
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
        RankError,
    ) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Ends the command with a message on stderr and exit code 1."""
    _say_aside("error", "bold red", message)
    raise typer.Exit(1)


def warn(message: str) -> None:
    """Prints a warning on stderr."""
    _say_aside("warning", "bold yellow", message)


@contextmanager
def image_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over images, on a terminal only."""
    if not console.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say_strengths(classifier: TransductiveClassifier) -> None:
    """Says where the strengths of transductive classification come from."""
    if classifier.is_chosen:
        say(f"transductive; chosen on folds of the seen classes: {classifier.config}")
    else:
        say(
            "transductive, with the default strengths; train with --set "
            "selection.transductive=true to choose them on folds of the seen classes"
        )


def say(message: str) -> None:
    """Prints one line, however long, with names in it as they are."""
    console.print(message, soft_wrap=True)


def _say_aside(label: str, style: str, message: str) -> None:
    text = Text.assemble((f"{label}:", style), " ", printable(message))
    _errors.print(text, soft_wrap=True)


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """Options by name, of texts KEY=VALUE; a value that is not JSON is a text.

    Example:
        >>> parse_settings(["epochs=3", "kl_warmup=[0, 5]", "positives=in"])
        {'epochs': 3, 'kl_warmup': [0, 5], 'positives': 'in'}
    """
    parsed = {}
    for setting in settings or []:
        key, separator, value = setting.partition("=")
        if not separator:
            raise typer.BadParameter(f"expected KEY=VALUE, but got {setting!r}", param_hint="--set")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return parsed


def parts(text: str) -> list[str]:
    """What stands between the commas of a text.

    Example:
        >>> parts("zsl, gzsl")
        ['zsl', 'gzsl']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_seeds(text: str) -> list[int]:
    """Whole numbers with commas."""
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


def load_data(source: dict[str, Any]) -> Dataset:
    """The dataset that "data", "features" and "semantics" name."""
    return load(source["data"], features=source["features"], semantics=source["semantics"])


def read_source(run_dir: Path) -> dict[str, Any]:
    """Which data a run was trained on: "data", "features", "semantics" and "split".

    Raises:
        ValueError: when the folder does not say so.
    """
    path = run_dir / DATA_FILE
    try:
        source = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{run_dir}: expected the folder of a run, but it has no {DATA_FILE}"
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: damaged, not JSON") from None
    if not isinstance(source, dict) or not {"data", "features", "semantics", "split"} <= {*source}:
        raise ValueError(f"{path}: damaged, it does not say which data the run was trained on")
    return source


def load_classifier(
    run_dir: Path,
    device: str = "cpu",
    *,
    head: str | None = None,
    calibration: float | None = None,
) -> ZeroShotClassifier:
    """The classifier of a finished run.

    Args:
        run_dir: folder of the run.
        device: where to compute.
        head: which head answers; None is the run's own.
        calibration: of that head; None is the run's own.

    Raises:
        ValueError: when the run is not finished, or has no such head.
    """
    path = run_dir / CLASSIFIER_FILE
    if not path.exists():
        raise ValueError(
            f"{run_dir}: expected the folder of a finished run, but it has no {path.name}"
        )
    if calibration is not None and not math.isfinite(calibration):
        raise ValueError(f"--calibration: expected a finite number, got {calibration}")
    classifier = ZeroShotClassifier.load(path, device=device)
    if head is not None:
        classifier = classifier.with_head(head)
    if calibration is not None:
        classifier.set_params(calibration=calibration)
    return classifier
