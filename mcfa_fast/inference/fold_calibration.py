"""The calibration of a generalized task by cross-validation over the seen classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mcfa_fast.config import MCFAConfig
from mcfa_fast.data.folds import ClassFold, class_folds
from mcfa_fast.evaluation.curve import SeenUnseenCurve, best_calibration
from mcfa_fast.evaluation.folds import fold_outcome
from mcfa_fast.inference.bulk import encode_means
from mcfa_fast.inference.heads import METHODS, ClassifierHeads
from mcfa_fast.inference.validation import Validation
from mcfa_fast.training.trainer import Trainer

__all__ = ["calibrate_on_folds"]

_FOLDS = 3


def calibrate_on_folds(
    config: MCFAConfig,
    features: np.ndarray,
    labels: np.ndarray,
    semantics: Tensor,
    *,
    device: torch.device | str = "cpu",
) -> Validation:
    """Train on three folds, each without a third of the seen classes, and calibrate on all.

    A fold's held-out classes play the unseen ones, a fifth of the rows of its other classes the
    seen test images. One calibration per method is the best for the three curves together (see
    :func:`~mcfa_fast.evaluation.curve.best_calibration`). The number of epochs is not chosen.

    Args:
        config: options of the run, of task "gzsl".
        features: raw training features [n, F].
        labels: class index [n] of every row.
        semantics: raw descriptors [C, A] of all classes; those of unseen classes are not looked at.
        device: where to train.

    Returns:
        What was chosen; its score is the mean harmonic mean over the folds of the nearest-class
        rule with the calibration chosen for it.

    Raises:
        ValueError: when there are fewer than 4 seen classes.
    """
    folds = class_folds(
        labels, _FOLDS, generalized=True, generator=config.generator("calibration folds")
    )
    curves: dict[str, list[SeenUnseenCurve]] = {method: [] for method in METHODS}
    for fold in folds:
        heads = _train(config, fold, features, semantics, device)
        latents = encode_means(heads.model, features[fold.test])
        for method in METHODS:
            scores = heads.scores(latents, heads.classes, method).double().numpy()
            scores /= heads.calibration_unit(method)
            curves[method].append(fold_outcome(scores, fold))
    chosen = {method: best_calibration(group) for method, group in curves.items()}
    return Validation(
        epochs=config.epochs,
        score=chosen["nearest"][1],
        held_out=tuple(int(c) for fold in folds for c in fold.classes[fold.held_out]),
        calibration={method: calibration for method, (calibration, _) in chosen.items()},
    )


def _train(
    config: MCFAConfig,
    fold: ClassFold,
    features: np.ndarray,
    semantics: Tensor,
    device: torch.device | str,
) -> ClassifierHeads:
    images = features[fold.train], fold.labels[fold.train]
    semantics = semantics[torch.from_numpy(fold.classes)]
    model = Trainer(config, *images, semantics, device=device).fit()
    return ClassifierHeads.from_images(model, *images, semantics, torch.from_numpy(fold.held_out))
