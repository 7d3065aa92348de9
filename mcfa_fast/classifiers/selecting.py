"""Selection for a run: its settings and calibrations, on folds of the seen classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mcfa_fast.classifiers.config import RunConfig
from mcfa_fast.classifiers.fitted import Fitted, fit_heads
from mcfa_fast.classifiers.heads import HEADS, Head
from mcfa_fast.classifiers.transductive_choice import choose_strengths
from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.inputs import TrainingData
from mcfa_fast.selection.calibration import HeldOutScores, calibrate
from mcfa_fast.selection.choose import choose
from mcfa_fast.selection.folds import ClassFold, selection_folds
from mcfa_fast.selection.result import Selection
from mcfa_fast.storage import CheckpointError, fingerprint, write_text
from mcfa_fast.systems.base import SystemConfig, TrainableConfig
from mcfa_fast.systems.fit import fit_path
from mcfa_fast.systems.registry import find
from mcfa_fast.training.ranks import World

__all__ = ["fold_scores", "select"]

_CHUNK = 2**19  # features of a chunk


def select(
    run: RunConfig,
    data: TrainingData,
    *,
    device: torch.device | str = "cpu",
    run_dir: Path | None = None,
    fixed: Mapping[str, Any] | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[RunConfig, Selection | None]:
    """Choose inside the seen classes what the run's rule says.

    Args:
        run: what to choose for.
        data: the images of the seen classes; descriptors of unseen classes are not looked at.
        device: where to train.
        run_dir: keeps the choice, so that a run that resumes does not make it again.
        fixed: options that are not to be changed.
        group: processes that train together; all of them take the choice of rank 0, which alone
            reads and writes in `run_dir`.

    Returns:
        The run with the chosen setting, and all that was chosen; None for a rule that chooses
        nothing on folds.

    Raises:
        ValueError: when there are too few seen classes, or no setting gives finite scores.
    """
    rule = run.selection.rule
    if rule in ("none", "test"):
        return run, None
    world = World(group)
    kept: _Kept | None = None

    def known() -> Any:
        nonlocal kept
        kept = None if run_dir is None else _Kept(run_dir, run, data, fixed or {})
        selection = None if kept is None else kept.read()
        return selection and selection.to_dict()

    content = world.json_from_first(known)
    if content is None:
        content = world.json_from_first(_selected(run, data, device, fixed or {}, group).to_dict)
        if kept is not None:
            kept.write(Selection.from_dict(content))
    selection = Selection.from_dict(content)
    return (run.replace(selection.setting) if selection.setting else run), selection


def fold_scores(
    run: RunConfig,
    data: TrainingData,
    fold: ClassFold,
    settings: list[dict[str, Any]],
    device: torch.device | str,
    group: dist.ProcessGroup | None = None,
) -> Iterator[np.ndarray | None]:
    """A :data:`~mcfa_fast.selection.choose.ScorePath` for the head that answers, whose scores are
    in its calibration's unit: one calibration then fits all folds."""
    for fitted in _fitted_path(run, data, fold, settings, device, group, only=run.head):
        if fitted is None:
            yield None
        else:
            head = fitted.heads[run.head]
            scores = head_scores(head, data.features.take(fold.test))
            yield _columns(head, scores, fold) / head.calibration_unit


def head_scores(head: Head, features: FeatureRows) -> Tensor:
    """Uncalibrated scores [N, K] of all rows."""
    size = max(16, _CHUNK // features.width)
    return features.map(head.scores, size)


def _selected(
    run: RunConfig,
    data: TrainingData,
    device: torch.device | str,
    fixed: Mapping[str, Any],
    group: dist.ProcessGroup | None,
) -> Selection:
    folds = selection_folds(
        data.labels,
        run.selection.folds,
        generalized=run.task == "gzsl",
        seed=run.options.seed,
    )
    setting: dict[str, Any] = {}
    settings = run.settings(fixed) if run.selection.rule == "grid" else [{}]
    if len(settings) > 1:
        choice = choose(
            settings, folds, lambda fold: fold_scores(run, data, fold, settings, device, group)
        )
        # Ranks on different processors may round otherwise; all have to train the same.
        setting = World(group).json_from_first(lambda: dict(choice.setting))
        run = run.replace(setting)
    held_out = [_held_out(run, data, fold, device, group) for fold in folds]
    heads = [name for name in run.heads if HEADS[name].gives_log_probabilities]
    weight = getattr(run.heads.get("ensemble"), "weight", 0.5)
    selection = calibrate(held_out, run.head, log_probabilities=heads, weight=weight)
    selection = replace(selection, setting=setting)
    if run.selection.transductive:
        chosen = choose_strengths(held_out, selection, data)
        selection = replace(selection, transduction=chosen)
    return selection


def _held_out(
    run: RunConfig,
    data: TrainingData,
    fold: ClassFold,
    device: torch.device | str,
    group: dist.ProcessGroup | None,
) -> HeldOutScores:
    """All heads' scores of a fold."""
    (fitted,) = _fitted_path(run, data, fold, [{}], device, group)
    if fitted is None:
        raise FloatingPointError("the training diverged on a fold; try a lower learning_rate")
    features = data.features.take(fold.test)
    scores = {
        name: _columns(head, head_scores(head, features), fold)
        for name, head in fitted.heads.items()
    }
    weighted = None
    if "ensemble" in fitted.heads:
        ensemble: Any = fitted.heads["ensemble"]
        size = max(16, _CHUNK // features.width)
        parts = [ensemble.parts(chunk) for chunk in features.chunks(size)]
        log_probabilities, similarities = (torch.cat(p) for p in zip(*parts, strict=True))

        def weighted(weight: float) -> np.ndarray:
            combined = ensemble.combined(log_probabilities, similarities, weight)
            return _columns(ensemble, combined, fold)

    units = {name: head.calibration_unit for name, head in fitted.heads.items()}
    return HeldOutScores(fold, scores, units, weighted)


def _fitted_path(
    run: RunConfig,
    data: TrainingData,
    fold: ClassFold,
    settings: list[dict[str, Any]],
    device: torch.device | str,
    group: dist.ProcessGroup | None,
    only: str | None = None,
) -> Iterator[Fitted | None]:
    part = data.without(fold.classes, fold.train, fold.labels[fold.train])
    runs = [run.replace(setting) if setting else run for setting in settings]
    configs = [_within(one.options, len(part.seen_classes)) for one in runs]
    path = fit_path(find(run.system).system, configs, part, device=device, group=group)
    for one, system in zip(runs, path, strict=True):
        yield None if system is None else fit_heads(one, system, part, only=only)


def _within(options: SystemConfig, classes: int) -> SystemConfig:
    """The options with episodes of no more classes than a fold has."""
    if not isinstance(options, TrainableConfig) or options.training.classes_per_batch <= classes:
        return options
    return options.replace(classes_per_batch=classes)


def _columns(head: Head, scores: Tensor, fold: ClassFold) -> np.ndarray:
    """The columns of a fold's candidates, as float64."""
    columns = torch.searchsorted(head.classes, torch.from_numpy(fold.candidates))
    return scores[:, columns].double().numpy()


class _Kept:
    """The choice of a run in its folder, with all that it depends on."""

    def __init__(
        self, run_dir: Path, run: RunConfig, data: TrainingData, fixed: Mapping[str, Any]
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / "selection.json"
        self._run, self._data, self._fixed = run, data, sorted(fixed)

    def _made_for(self) -> dict[str, Any]:
        """Reads all features, unless their fingerprint is known."""
        made_for = {
            "run": self._run.model_dump(mode="json"),
            "fixed": self._fixed,
            "features": self._data.features.fingerprint,
            "labels": fingerprint([torch.from_numpy(self._data.labels)]),
            "semantics": fingerprint([self._data.semantics]),
        }
        return json.loads(json.dumps(made_for))  # as when it is read back

    def read(self) -> Selection | None:
        """The choice, if it was made for the same run."""
        if not self._path.exists():
            return None
        try:
            content = json.loads(self._path.read_bytes())
            if content["made_for"] != self._made_for():
                return None
            return Selection.from_dict(content["selection"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CheckpointError(f"{self._path}: damaged; delete it to choose anew") from error

    def write(self, selection: Selection) -> None:
        content = {"selection": selection.to_dict(), "made_for": self._made_for()}
        write_text(self._path, json.dumps(content, indent=2) + "\n")
