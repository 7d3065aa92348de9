"""What an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mcfa_fast.classifiers import ZeroShotClassifier
from mcfa_fast.systems.base import Embeds
from mcfa_fast.systems.presets import Task

__all__ = ["KEY", "Metadata"]

KEY = "mcfa_fast.json"
"""Name of the metadata within a file: an extra file of an archive, a property of an ONNX model."""

_FORMAT: Literal["mcfa_fast exported classifier"] = "mcfa_fast exported classifier"
_VERSION = 2


class Metadata(BaseModel):
    """Description of an exported classifier, kept in its file as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["mcfa_fast exported classifier"] = _FORMAT
    format_version: int = Field(_VERSION, description="Version of the file's layout.")
    library: str = Field(description="Version of mcfa_fast that wrote the file.")
    torch: str = Field(description="Version of PyTorch that wrote the file.")
    system: str = Field(min_length=1, description="Name of the system that was trained.")
    task: Task
    head: str = Field(min_length=1, description="Name of the head that gives the scores.")
    class_names: tuple[str, ...] = Field(min_length=1, description="Names of the K columns.")
    class_indices: tuple[int, ...] = Field(description="The classes' indices when trained, [K].")
    seen: tuple[bool, ...] = Field(description="Whether a class had training images, [K].")
    calibration: float = Field(description="Already subtracted from the scores of seen classes.")
    features: int = Field(ge=1, description="Raw visual features F.")
    embedding_features: int | None = Field(
        ge=1, description="Dimensions D of the space of embeddings; None without one."
    )

    @model_validator(mode="after")
    def _one_entry_per_class(self) -> Metadata:
        if not len(self.class_names) == len(self.class_indices) == len(self.seen):
            raise ValueError("class_names, class_indices and seen differ in length")
        return self

    @classmethod
    def of(cls, classifier: ZeroShotClassifier) -> Metadata:
        """Of a fitted classifier, as it is set now."""
        indices: Sequence[int] = classifier.classes_.tolist()
        seen = set(classifier.seen_classes_.tolist())
        system = classifier.system_
        return cls(
            library=version("mcfa_fast"),
            torch=str(torch.__version__),
            system=classifier.run_.system,
            task=classifier.run_.task,
            head=classifier.head_.name,
            class_names=tuple(classifier.class_names_[index] for index in indices),
            class_indices=tuple(indices),
            seen=tuple(index in seen for index in indices),
            calibration=float(classifier.effective_calibration),
            features=system.visual_features,
            embedding_features=system.embedding_features if isinstance(system, Embeds) else None,
        )

    @classmethod
    def parse(cls, text: str | bytes) -> Metadata:
        """Read what ``model_dump_json`` wrote.

        Raises:
            ValueError: on anything else, and on a file of another version.
        """
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"expected a file written by mcfa_fast's export, with {KEY} in it")
        found = content.get("format_version")
        if isinstance(found, int) and found != _VERSION:
            raise ValueError(
                f"written by mcfa_fast {content.get('library')} in version {found} of the format; "
                f"this is mcfa_fast {version('mcfa_fast')}, which reads version {_VERSION}: export "
                "the run again"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{KEY} is damaged: {where}: {first['msg']}") from error
