"""Choosing epochs, calibrations, weights and thresholds on seen classes held out of training."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.config import MCFAConfig
from mcfa_fast.data.folds import ClassFold, hold_out
from mcfa_fast.evaluation.folds import fold_outcome
from mcfa_fast.inference.bulk import encode_means
from mcfa_fast.inference.choices import HeldOutScores, Rejection
from mcfa_fast.inference.heads import DEFAULT_WEIGHT, METHODS, ClassifierHeads
from mcfa_fast.inference.latent_index import LatentIndex
from mcfa_fast.inference.latents import class_latents
from mcfa_fast.models.mcfa import MCFA
from mcfa_fast.training.checkpoint import read_checkpoint, write_checkpoint
from mcfa_fast.training.trainer import Trainer

__all__ = ["Validation", "validate"]

_METRIC = "validation_score"


@dataclass(frozen=True)
class Validation:
    """What was chosen on the held-out classes.

    Attributes:
        epochs: (first) epoch with the highest `score`.
        score: of the nearest-class rule, in 0..1: mean per-class accuracy among the held-out
            classes, or for a generalized task the harmonic mean at its best calibration.
        held_out: their class indices.
        calibration: for a generalized task, the calibration per method that maximises the harmonic
            mean on the folds, as a multiple of
            :meth:`~mcfa_fast.inference.heads.ClassifierHeads.calibration_unit`; empty otherwise.
        weight: share of the nearest class in the ensemble.
        rejection: per method, how high the best scores of images on the fold are.
    """

    epochs: int
    score: float
    held_out: tuple[int, ...]
    calibration: dict[str, float] = field(default_factory=dict)
    weight: float = DEFAULT_WEIGHT
    rejection: dict[str, Rejection] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Validation:
        """What ``dataclasses.asdict`` was given."""
        rejection = content.get("rejection", {})
        rejection = {method: Rejection(**scores) for method, scores in rejection.items()}
        return cls(**{**content, "rejection": rejection})


def validate(
    config: MCFAConfig,
    features: np.ndarray,
    labels: np.ndarray,
    semantics: Tensor,
    *,
    device: torch.device | str = "cpu",
    run_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Validation:
    """Train on a part of the seen classes and see which epoch serves the others best.

    `validation_classes` of the seen classes are held out (default: a fifth, but two at least, as
    one class is never mistaken for another). For a generalized task a fifth of the rows of each
    other class is held out as well. On these rows, with the model of the chosen epoch, the
    ensemble's weight is chosen, for a generalized task also the calibration of every method, and
    the scores that rejection goes by are taken.

    Args:
        config: options of the run; `epochs` is the highest number of epochs that can be chosen.
        features: raw training features [n, F].
        labels: class index [n] of every row.
        semantics: raw descriptors [C, A] of all classes; those of unseen classes are not looked at.
        device: where to train.
        run_dir: folder of the run on the fold, which resumes when it was killed.
        progress: show a progress bar.

    Raises:
        ValueError: when there are too few seen classes to hold some out.
    """
    fold = _make_fold(config, labels)
    semantics = semantics[torch.from_numpy(fold.classes)]
    images = features[fold.test]
    best_path = None if run_dir is None else Path(run_dir) / "best.pt"
    best_weights = None

    def measure(epoch: int, model: MCFA) -> dict[str, float]:
        nonlocal best_weights
        score = _nearest_score(model, fold, images, semantics)
        if score > max((row[_METRIC] for row in trainer.history), default=-1.0):
            best_weights = deepcopy(model.state_dict())
            if best_path is not None:
                write_checkpoint(best_path, best_weights)
        return {_METRIC: score}

    trainer = Trainer(
        config,
        features[fold.train],
        fold.labels[fold.train],
        semantics,
        device=device,
        run_dir=run_dir,
        progress=progress,
        on_epoch_end=measure,
    )
    model = trainer.fit()
    best = max(trainer.history, key=lambda row: row[_METRIC])  # the first of equals
    # A resumed run may not have seen its best epoch.
    model.load_state_dict(best_weights or read_checkpoint(best_path, device))
    heads = ClassifierHeads.from_images(
        model,
        features[fold.train],
        fold.labels[fold.train],
        semantics,
        torch.from_numpy(fold.held_out),
    )
    scores = _scores(heads, fold, images)
    weight = scores.choose_weight()
    calibration = {}
    if scores.generalized:
        calibration = {method: scores.calibration(method, weight) for method in METHODS}
    return Validation(
        epochs=int(best["epoch"]),
        score=best[_METRIC],
        held_out=tuple(fold.classes[fold.held_out].tolist()),
        calibration={
            method: value / heads.calibration_unit(method) for method, value in calibration.items()
        },
        weight=weight,
        rejection={
            method: scores.rejection(method, weight, calibration.get(method, 0.0))
            for method in METHODS
        },
    )


def _make_fold(config: MCFAConfig, labels: np.ndarray) -> ClassFold:
    classes = len(np.unique(labels))
    count = config.validation_classes or max(2, round(classes / 5))
    if count < 2:
        raise ValueError(
            "validation_classes: expected 2 or more (one class alone is always right), got 1"
        )
    smallest = config.classes_per_batch if config.sampler == "episodic" else 1
    if classes - count < smallest:
        raise ValueError(
            f"validation_classes: holding out {count} of {classes} seen classes leaves "
            f"fewer than the {smallest} that training needs (classes_per_batch); choose fewer of "
            "either, on the command line with --set"
        )
    generator = config.generator("validation")
    held_out = torch.randperm(classes, generator=generator)[:count].numpy()
    return hold_out(labels, held_out, generalized=config.task == "gzsl", generator=generator)


def _nearest_score(model: MCFA, fold: ClassFold, images: np.ndarray, semantics: Tensor) -> float:
    """What :attr:`Validation.score` is, of the fold's test images."""
    candidates = torch.from_numpy(fold.candidates)
    index = LatentIndex(model.config.latent_features)
    index.add(class_latents(model, semantics, candidates, per_class=1).mean, candidates)
    scores, _ = index.scores(encode_means(model, images))
    outcome = fold_outcome(scores.numpy(), fold)
    return outcome.best().harmonic if fold.generalized else outcome


def _scores(heads: ClassifierHeads, fold: ClassFold, images: np.ndarray) -> HeldOutScores:
    """Both classifiers' scores of the fold's test images."""
    latents = encode_means(heads.model, images)
    classes = heads.softmax_classes
    return HeldOutScores(
        log_probabilities=heads.scores(latents, classes, "softmax"),
        cosines=heads.scores(latents, classes, "nearest"),
        sharpness=heads.sharpness,
        labels=fold.labels[fold.test],
        classes=classes.numpy(),
        seen_classes=heads.seen_classes.numpy(),
        generalized=fold.generalized,
    )
