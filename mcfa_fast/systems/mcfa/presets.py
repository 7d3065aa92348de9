"""The presets of MCFA, its ablation, and single changes of the paper's settings."""

from __future__ import annotations

from functools import partial
from typing import Any

from mcfa_fast.systems.presets import Preset, PresetOf, Task, check_task

__all__ = ["ABLATION", "CHANGES", "PRESETS", "preset"]

Options = dict[str, Any]

# Table I of the paper, and the classifier settings published with it.
_TASK: dict[str, tuple[Options, Options]] = {
    "zsl": (
        {
            "cross_reconstruction_weight": 10.0,
            "alignment_weight": 1.0,
            "vtov_weight": 100.0,
            "vtos_weight": 100.0,
            "stov_weight": 10.0,
            "instances_per_class": 5,
        },
        {"epochs": 50, "seen_samples": 0, "unseen_samples": 200},
    ),
    "gzsl": (
        {
            "cross_reconstruction_weight": 1.0,
            "alignment_weight": 1.0,
            "vtov_weight": 0.1,
            "vtos_weight": 1.0,
            "stov_weight": 1.0,
            "instances_per_class": 10,
        },
        {"epochs": 23, "seen_samples": 200, "unseen_samples": 400},
    ),
}

# What the authors' public code does otherwise than the paper's equations say.
_REFERENCE: Options = {
    "positives": "in",
    "sampling_scale": "variance",
    "noise": "row",
    "class_weighting": "rows",
    "shared_offsets": True,
}
_REFERENCE_SOFTMAX: Options = {"seen_choice": "first", "resample": False}


def _paper(task: Task, changes: Options | None = None) -> Preset:
    options, softmax = _TASK[task]
    return Preset(
        options={**options, **(changes or {})},
        heads={"softmax": softmax},
        selection={"rule": "none"},
    )


def _reference(task: Task) -> Preset:
    options, softmax = _TASK[task]
    return Preset(
        options={**options, **_REFERENCE},
        heads={"softmax": {**softmax, **_REFERENCE_SOFTMAX, "drop_last": task == "gzsl"}},
        selection={"rule": "test"},
    )


_CONTRASTS = ("vtov", "vtos", "stov")


def _with_only(*contrasts: str) -> Options:
    return {f"{name}_weight": 0.0 for name in _CONTRASTS if name not in contrasts}


ABLATION: dict[str, Options] = {
    "v0": _with_only(),
    "v1": _with_only("vtov"),
    "v2": _with_only("vtos"),
    "v3": _with_only("stov"),
    "v4": _with_only("vtov", "vtos"),
    "v5": _with_only(*_CONTRASTS),
}
"""Which contrastive losses are used, the others' weights being 0 (Liu et al., Table III)."""

_LARGE_BATCH: Options = {"sampler": "batch", "learning_rate_scaling": "sqrt"}

CHANGES: dict[str, Options] = {
    "in": {"positives": "in"},
    "means": {"contrast": "means"},
    "noise-row": {"noise": "row"},
    "kl-0.1": {"kl_weight": 0.1},
    "kl-0.01": {"kl_weight": 0.01},
    "temperature-0.1": {"temperature": 0.1},
    "temperature-0.5": {"temperature": 0.5},
    "latent-16": {"latent_features": 16},
    "latent-256": {"latent_features": 256},
    "batch-256": {**_LARGE_BATCH, "batch_size": 256},
    "batch-1024": {**_LARGE_BATCH, "batch_size": 1024},
    "batch-all": {**_LARGE_BATCH, "batch_size": None},
}
"""The paper's settings with one change each; larger batches take the same number of epochs."""

PRESETS: dict[str, PresetOf] = {
    "paper": _paper,
    "reference": _reference,
    **{name: partial(_paper, changes=changes) for name, changes in (ABLATION | CHANGES).items()},
}


def preset(name: str, task: Task) -> Preset:
    """A preset for a task.

    Raises:
        ValueError: If ``task`` is neither ``"zsl"`` nor ``"gzsl"``.
    """
    check_task(task)
    return PRESETS[name](task)
