"""What a run folder says about its run, read and checked."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mcfa_fast.classifiers.config import RunConfig

__all__ = ["HeadResult", "RunFiles", "SelectionResult", "read_run"]

Metrics = dict[str, np.ndarray]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Content(BaseModel):
    """Of another version's files, what this one does not know is left aside."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ClassCount(_Content):
    """One class of a result, see :class:`~mcfa_fast.evaluation.metrics.ClassResult`."""

    index: Count
    name: str
    count: Count
    correct: Count
    accuracy: Share | None


class Point(_Content):
    """See :class:`~mcfa_fast.evaluation.curve.OperatingPoint`."""

    calibration: float
    seen: Share
    unseen: Share
    harmonic: Share


class Generalized(Point):
    """See :class:`~mcfa_fast.evaluation.evaluate.GeneralizedResult`."""

    chance: Share
    ausuc: Share
    best: Point


class HeadResult(_Content):
    """Results of one head, see :class:`~mcfa_fast.evaluation.evaluate.Evaluation`."""

    dataset: str
    split: str
    accuracy: Share
    chance: Share
    generalized: Generalized | None
    classes: Annotated[list[ClassCount], Field(min_length=1)]
    confusion: list[list[Count]]
    note: str = ""

    @property
    def headline(self) -> float:
        """H, or the zero-shot accuracy of a run that is not generalized."""
        return self.accuracy if self.generalized is None else self.generalized.harmonic

    @model_validator(mode="after")
    def _check_confusion(self) -> HeadResult:
        classes = len(self.classes)
        if [len(row) for row in self.confusion] != [classes] * classes:
            raise ValueError(f"confusion: expected {classes} rows and columns, one per class")
        return self


class SelectionResult(_Content):
    """See :class:`~mcfa_fast.selection.result.Selection`."""

    score: float
    held_out: Annotated[list[Count], Field(min_length=1)]
    setting: dict[str, Any]


class _ResultsFile(_Content):
    run: RunConfig
    selection: SelectionResult | None
    results: dict[str, HeadResult]

    @model_validator(mode="after")
    def _check_task(self) -> _ResultsFile:
        generalized = self.run.task == "gzsl"
        for head, result in self.results.items():
            if (result.generalized is not None) != generalized:
                raise ValueError(f"results.{head}.generalized: does not suit the task")
        return self


class _Source(_Content):
    data: str
    features: str | None = None
    semantics: str | None = None


@dataclass(frozen=True, eq=False)
class RunFiles:
    """One finished run.

    Attributes:
        path: its folder.
        config: the run as it was trained.
        results: per head.
        selection: what was chosen inside the seen classes, if anything.
        metrics: per epoch, by name; None without the file.
        curves: per head the seen and unseen accuracies [2, B] of its seen-unseen curve, for the
            heads whose file is there.
        source: which data it was trained on, as ``data``, ``features`` and ``semantics``.
    """

    path: Path
    config: RunConfig
    results: dict[str, HeadResult]
    selection: SelectionResult | None
    metrics: Metrics | None
    curves: dict[str, np.ndarray]
    source: dict[str, str | None] | None

    @property
    def first(self) -> HeadResult:
        """Any head's results, for what all have in common."""
        return next(iter(self.results.values()))

    @property
    def generalized(self) -> bool:
        return self.config.task == "gzsl"


def read_run(path: Path) -> RunFiles:
    """Reads the folder of a finished run.

    Only ``results.json`` must be there; what hangs on another file that is absent is None or empty.

    Raises:
        ValueError: when the folder is not that of a finished run, or one of its files is damaged;
            it names the file and what is wrong with it.
    """
    results_path = path / "results.json"
    if not results_path.exists():
        if (path / "training.json").exists():
            raise ValueError(
                f"{path}: this run is not finished (no results.json); the command that started it "
                "resumes it"
            )
        raise ValueError(f"{path}: expected the folder of a finished run, it has no results.json")
    content = _parse(results_path, _ResultsFile)
    if not content.results:
        raise ValueError(
            f"{path}: this run has no results to report on: no unseen class of its split has test "
            "images"
        )
    source_path = path / "data.json"
    return RunFiles(
        path=path,
        config=content.run,
        results=content.results,
        selection=content.selection,
        metrics=_read_metrics(path / "metrics.csv"),
        curves={
            head: curve
            for head in content.results
            if (curve := _read_curve(path / f"curve_{head}.csv")) is not None
        },
        source=_parse(source_path, _Source).model_dump() if source_path.exists() else None,
    )


def _parse(path: Path, model: type[BaseModel]) -> Any:
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{path}: damaged, {problem}") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error})") from None


def _read_metrics(path: Path) -> Metrics | None:
    columns = _read_columns(path)
    if not columns:
        return None
    if "epoch" not in columns:
        raise ValueError(f"{path}: damaged, no column 'epoch'")
    return columns


def _read_curve(path: Path) -> np.ndarray | None:
    columns = _read_columns(path)
    if columns is None:
        return None
    missing = {"seen", "unseen"} - columns.keys()
    if missing:
        raise ValueError(f"{path}: damaged, no column {sorted(missing)[0]!r}")
    curve = np.stack([columns["seen"], columns["unseen"]])
    if not ((curve >= 0) & (curve <= 1 + 1e-9)).all():
        raise ValueError(f"{path}: damaged, expected accuracies in 0..1")
    return curve


def _read_columns(path: Path) -> Metrics | None:
    """A CSV file of numbers by column; None if there is no such file, {} if it has no row."""
    if not path.exists():
        return None
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        columns = {} if not rows else {name: [row[name] for row in rows] for name in rows[0]}
        return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    except (ValueError, TypeError, KeyError, csv.Error):
        raise ValueError(f"{path}: damaged, expected a number in every column of a row") from None
