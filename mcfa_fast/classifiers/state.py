"""A fitted classifier as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.fitted import Fitted, make_heads
from mcfa_fast.classifiers.heads import ClassTable
from mcfa_fast.selection.result import Selection
from mcfa_fast.storage import CheckpointError, read_checkpoint, write_checkpoint
from mcfa_fast.systems.registry import find

if TYPE_CHECKING:
    from mcfa_fast.classifiers.zero_shot import ZeroShotClassifier

__all__ = ["read_classifier", "write_classifier"]

_FORMAT = "mcfa_fast classifier, version 4"
_PARAMETERS = ("head", "calibration", "weight", "rejection_rate", "threshold")

Classifier = TypeVar("Classifier", bound="ZeroShotClassifier")


def write_classifier(path: Path, classifier: ZeroShotClassifier) -> None:
    """Write a fitted classifier, crash-safely; tensors and plain values only."""
    fitted, selection = classifier.fitted_, classifier.selection_
    state: dict[str, Any] = {
        "format": _FORMAT,
        "parameters": {name: getattr(classifier, name) for name in _PARAMETERS},
        "run": classifier.run_.model_dump_json(),
        "selection": None if selection is None else selection.to_dict(),
        "class_names": list(classifier.class_names_),
        "feature_names": list(getattr(classifier, "feature_names_in_", ())) or None,
        "visual_features": fitted.system.visual_features,
        "system": dict(fitted.system.state_dict()),
        "table": vars(fitted.table),
        "heads": {name: head.state_dict() for name, head in fitted.heads.items()},
    }
    write_checkpoint(path, state)


def read_classifier(kind: type[Classifier], path: Path, device: torch.device | str) -> Classifier:
    """Read what :func:`write_classifier` wrote.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: when the file is damaged or not a saved classifier.
    """
    try:
        state = read_checkpoint(path)
    except CheckpointError as error:
        raise ValueError(f"{path}: damaged, or not a saved classifier") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path}: expected a file written by ZeroShotClassifier.save")
    try:
        return _restore(kind, state, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise ValueError(
            f"{path}: its content is not that of a saved classifier "
            f"({type(error).__name__}: {error})"
        ) from error


def _restore(
    kind: type[Classifier], state: dict[str, Any], device: torch.device | str
) -> Classifier:
    run = RunConfig.model_validate_json(state["run"])
    table = ClassTable(**state["table"])
    widths = state["visual_features"], table.semantics.shape[1]
    system = find(run.system).system(run.options, *widths, device=device)
    system.load_state_dict(state["system"])
    heads = make_heads(run, system)
    for name, head in heads.items():
        head.load_state_dict(state["heads"][name], table)
    classifier = kind(run, task=run.task, device=device, **state["parameters"])
    classifier.run_, classifier.fitted_ = run, Fitted(system, table, heads)
    classifier.selection_ = state["selection"] and Selection.from_dict(state["selection"])
    classifier.class_names_ = tuple(state["class_names"])
    classifier.take_feature_names(state.get("feature_names"))
    return classifier
