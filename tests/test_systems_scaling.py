"""Scalers of inputs, which are part of a model."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler as SklearnMinMaxScaler

from mcfa_fast.systems.scaling import MinMaxScaler, UnitScaler

F = 7


def assert_scales_as_scikit_learn(rows):
    expected = SklearnMinMaxScaler().fit(rows)
    scaler = MinMaxScaler(rows.shape[1]).fit(torch.from_numpy(rows))
    for values in (rows, rows * 2 + 1, -rows):
        # scikit-learn computes x * scale - min * scale, which cancels where the range is small.
        magnitude = np.abs(values * expected.scale_) + np.abs(expected.min_)
        error = np.abs(scaler(torch.from_numpy(values)).numpy() - expected.transform(values))
        assert (error <= 2.5e-7 * magnitude + 1e-7).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
        elements=st.floats(-1e3, 1e3, width=32),
    )
)
def test_scaler_agrees_with_scikit_learn(rows):
    assert_scales_as_scikit_learn(rows)


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 11])
def test_scaler_treats_nearly_constant_columns_as_scikit_learn(steps):
    epsilon = np.float32(2**-23)
    assert_scales_as_scikit_learn(np.array([[1, 5], [1 + steps * epsilon, 7]], dtype=np.float32))


def test_scaler_does_not_clip_and_is_the_identity_before_fit():
    values = torch.tensor([[0.0, 5.0], [10.0, 5.0]])
    scaler = MinMaxScaler(2)
    assert torch.equal(scaler(values), values)
    scaler.fit(values)
    assert scaler(torch.tensor([[-5.0, 6.0]])).tolist() == [[-0.5, 1.0]]


def test_scaler_state_travels_with_the_state_dict():
    fitted = MinMaxScaler(F).fit(torch.rand(9, F, generator=torch.Generator().manual_seed(0)))
    loaded = MinMaxScaler(F)
    loaded.load_state_dict(fitted.state_dict())
    values = torch.linspace(-1, 2, F)[None]
    assert torch.equal(loaded(values), fitted(values))


@pytest.mark.parametrize("shape", [(0, F), (3, F + 1), (F,)])
def test_scaler_refuses_wrong_shapes(shape):
    with pytest.raises(ValueError, match=rf"features: expected \[N, {F}\]"):
        MinMaxScaler(F).fit(torch.zeros(shape))


def test_unit_scaler_is_the_formula_in_pieces_too():
    rows = torch.rand(23, F, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    rows[4] = 0
    unit = torch.nn.functional.normalize(rows, dim=1)
    centred = unit - unit.mean(0)
    expected = centred / (1 - unit.mean(0).square().sum()).sqrt()
    scaler = UnitScaler(F).double()
    for values in (rows, rows.split(5)):
        torch.testing.assert_close(scaler.fit(values)(rows), expected)
    kept = torch.arange(23) != 4
    lengths = UnitScaler(F).double().fit(rows[kept])(rows[kept]).square().sum(1)
    assert lengths.mean().item() == pytest.approx(1)
    assert torch.equal(torch.jit.script(scaler)(rows), scaler(rows))


def test_unit_scaler_of_rows_that_are_all_the_same():
    rows = torch.ones(4, F)
    assert torch.isfinite(UnitScaler(F).fit(rows)(rows)).all()
