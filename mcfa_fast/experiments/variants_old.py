"""Variants of MCFA: its ablation, single changes of the paper's settings, and CADA-VAE."""

from __future__ import annotations

from typing import Any

__all__ = ["ABLATION", "CADA_VAE", "CHANGES"]

Options = dict[str, Any]

_CONTRASTS = ("vtov", "vtos", "stov")


def _with_only(*contrasts: str) -> Options:
    return {f"{name}_weight": 0.0 for name in _CONTRASTS if name not in contrasts}


ABLATION: dict[str, Options] = {
    "mcfa-v0": _with_only(),
    "mcfa-v1": _with_only("vtov"),
    "mcfa-v2": _with_only("vtos"),
    "mcfa-v3": _with_only("stov"),
    "mcfa-v4": _with_only("vtov", "vtos"),
    "mcfa-v5": _with_only(*_CONTRASTS),
}
"""Which contrastive losses are used, the others' weights being 0 (Liu et al., Table III)."""

_LARGE_BATCH: Options = {"sampler": "batch", "learning_rate_scaling": "sqrt"}

CHANGES: dict[str, Options] = {
    "mcfa-in": {"positives": "in"},
    "mcfa-means": {"contrast": "means"},
    "mcfa-noise-row": {"noise": "row"},
    "mcfa-kl-0.1": {"kl_weight": 0.1},
    "mcfa-kl-0.01": {"kl_weight": 0.01},
    "mcfa-temperature-0.1": {"temperature": 0.1},
    "mcfa-temperature-0.5": {"temperature": 0.5},
    "mcfa-latent-16": {"latent_features": 16},
    "mcfa-latent-256": {"latent_features": 256},
    "mcfa-batch-256": {**_LARGE_BATCH, "batch_size": 256},
    "mcfa-batch-1024": {**_LARGE_BATCH, "batch_size": 1024},
    "mcfa-batch-all": {**_LARGE_BATCH, "batch_size": None},
}
"""The paper's settings with one change each; larger batches take the same number of epochs."""

CADA_VAE: Options = {
    **_with_only(),
    "epochs": 100,
    "sampler": "batch",
    "batch_size": 50,
    "kl_weight": 0.25,
    "kl_warmup": (0, 93),
    "cross_reconstruction_weight": 2.37,
    "cross_reconstruction_warmup": (21, 75),
    "alignment_weight": 8.13,
    "alignment_warmup": (6, 22),
}
"""CADA-VAE: no contrast, and its own weights, which grow over the epochs.

Schönfeld et al., "Generalized Zero- and Few-Shot Learning via Aligned Variational Autoencoders",
2019, Sections 3 and 4. Layers and classifier are those of MCFA, so that nothing but the losses
differs.
"""
