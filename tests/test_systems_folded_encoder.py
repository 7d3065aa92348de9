"""The folded encoder against the layers it is made of, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from mcfa_fast.systems import folded_encoder
from mcfa_fast.systems.folded_encoder import FoldedEncoder
from mcfa_fast.systems.scaling import make_scaler

FEATURES = 24

pytestmark = pytest.mark.usefixtures("one_thread")


def images(rows, offset):
    values = np.random.default_rng(0).normal(size=(rows, FEATURES)) + offset
    return torch.from_numpy(values.astype(np.float32))


def make_layers(offset, hidden=40, scaling="minmax"):
    """A fitted scaler, a hidden layer or None, and the last layer."""
    generator = torch.Generator().manual_seed(0)
    scaler = make_scaler(scaling, FEATURES).fit(images(300, offset))
    layers = [nn.Linear(FEATURES, hidden)] if hidden else []
    layers.append(nn.Linear(hidden or FEATURES, 6))
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, generator=generator)
    return scaler, layers[0] if hidden else None, layers[-1]


def plain(scaler, hidden, last, features):
    with torch.no_grad():
        rows = scaler(features)
        return last(rows if hidden is None else torch.relu(hidden(rows)))


def exact(scaler, hidden, last, features):
    """In float64, without folding anything."""
    layers = [None if one is None else one.double() for one in (scaler, hidden, last)]
    return plain(*layers, features.double())


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e4])  # the last is not folded
@pytest.mark.parametrize("hidden", [40, None])
@pytest.mark.parametrize("scaling", ["minmax", "unit", "none"])
def test_folded_encoder_is_as_exact_as_its_layers(offset, hidden, scaling):
    features = images(200, offset)
    scaler, hidden, last = make_layers(offset, hidden, scaling)
    unfolded = plain(scaler, hidden, last, features).double()
    folded = FoldedEncoder(scaler, last, hidden)(features).double()
    wanted = exact(scaler, hidden, last, features)
    assert (folded - wanted).abs().max() <= 4 * (unfolded - wanted).abs().max() + 1e-6


def test_large_offsets_would_lose_digits_if_folded(monkeypatch):
    """What the limit is for."""
    features, (scaler, hidden, last) = images(200, 1e4), make_layers(1e4)
    monkeypatch.setattr(folded_encoder, "_LARGEST_OFFSET", float("inf"))
    folded = FoldedEncoder(scaler, last, hidden)(features).double()
    assert (folded - exact(scaler, hidden, last, features)).abs().max() > 1e-4


def test_later_changes_of_weights_are_not_seen():
    features, (scaler, hidden, last) = images(20, 1e4), make_layers(1e4)
    encoder = FoldedEncoder(scaler, last, hidden)
    before = encoder(features)
    with torch.no_grad():
        for tensor in (*hidden.parameters(), *last.parameters(), *scaler.buffers()):
            tensor.add_(1)
    assert torch.equal(encoder(features), before)
