"""The modules of losses: what they are made of is checked when they are made."""

import pytest
import torch

import mcfa_fast as mf

CONTRASTIVE = (mf.VtoVLoss, mf.VtoSLoss, mf.StoVLoss, mf.ContrastiveLosses)
OTHERS = (mf.WassersteinAlignment, mf.KLDivergence, mf.L1Reconstruction)
PAIRS = (mf.losses.InfoNCELoss, mf.losses.CLIPLoss, mf.losses.NTXentLoss)


@pytest.mark.parametrize("module", [*CONTRASTIVE, *OTHERS, PAIRS[0], PAIRS[2]])
def test_a_wrong_reduction_is_refused(module):
    with pytest.raises(ValueError, match="`reduction` to be 'sum', 'mean' or 'none', .* 'avg'"):
        module(reduction="avg")


@pytest.mark.parametrize("module", [mf.VtoVLoss, mf.StoVLoss, mf.ContrastiveLosses])
def test_a_wrong_form_of_positives_is_refused(module):
    with pytest.raises(ValueError, match="`positives` to be 'out' or 'in', but got 'both'"):
        module(positives="both")


@pytest.mark.parametrize("module", [*CONTRASTIVE, *PAIRS])
def test_a_wrong_temperature_is_refused(module):
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`temperature` to be positive and finite"):
            module(value)
    for value in ("0.1", True, None):
        with pytest.raises(TypeError, match="`temperature` to be a number, but got"):
            module(value)


@pytest.mark.parametrize("module", [*CONTRASTIVE, *PAIRS])
def test_a_temperature_is_trained_as_a_parameter_or_not_at_all(module):
    tau = torch.tensor(0.1)
    assert list(module(torch.nn.Parameter(tau)).parameters())
    assert [name for name, _ in module(tau).named_buffers()] == ["temperature"]
    with pytest.raises(ValueError, match="`temperature` to be a torch.nn.Parameter"):
        module(tau.clone().requires_grad_())
