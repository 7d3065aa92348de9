"""Fitting one system to arrays, and what it then computes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch

from mcfa_fast.data.inputs import TrainingData, training_data
from mcfa_fast.systems.base import System, SystemConfig
from mcfa_fast.systems.fit import fit
from mcfa_fast.systems.registry import Entry, find


def config_of(name: str, **options: Any) -> SystemConfig:
    """A system's options, those of its training included."""
    return find(name).system.Config().replace(**options)


def make_system(name: str, data: TrainingData, *, device: str = "cpu", **options: Any) -> System:
    """A new system of the data's widths."""
    widths = data.features.width, data.semantics.shape[1]
    return find(name).system(config_of(name, **options), *widths, device=device)


def fit_system(
    name: str, images: tuple[Any, Any], semantics: Any, *, device: str = "cpu", **options: Any
) -> System:
    """A system fitted to features and labels."""
    data = training_data(*images, semantics, None, None)
    system = make_system(name, data, device=device, **options)
    fit(system, data)
    return system


def scores(system: System, features: Any, semantics: Any) -> np.ndarray:
    """Scores [N, K] of raw features for raw descriptors."""
    rows, table = (torch.tensor(np.asarray(values, np.float32)) for values in (features, semantics))
    return system.scores(rows, table).numpy()


def prepared(system: System, features: Any) -> torch.Tensor:
    """Features as the system's mathematics see them."""
    rows = torch.tensor(np.asarray(features, np.float32))
    with torch.no_grad():
        return system.scaler(rows.to(system.scaler.offset))


def settings(entry: Entry) -> list[dict[str, Any]]:
    """Every setting of an entry's grid."""
    return [dict(zip(entry.grid, point, strict=True)) for point in product(*entry.grid.values())]
