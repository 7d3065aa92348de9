"""What losses are given: options of modules when they are made, arguments that are no tensors."""

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


F = mf.functional
ROWS, LABELS = torch.eye(4), torch.arange(4)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("visual", lambda wrong: F.vtov_loss(wrong, LABELS, temperature=0.1)),
        ("labels", lambda wrong: F.vtos_loss(ROWS, ROWS, wrong, temperature=0.1)),
        ("semantic", lambda wrong: F.contrastive_losses(ROWS, wrong, LABELS, temperature=0.1)),
        ("mean_b", lambda wrong: F.wasserstein_alignment(ROWS, ROWS, wrong, ROWS)),
        ("logvar", lambda wrong: F.kl_divergence(ROWS, wrong)),
        ("table", lambda wrong: F.l1_reconstruction(ROWS, wrong)),
        ("noise", lambda wrong: F.reparameterize(ROWS, ROWS, wrong)),
        ("keys", lambda wrong: F.info_nce_loss(ROWS, wrong, temperature=0.1)),
        ("texts", lambda wrong: F.clip_loss(ROWS, wrong, temperature=0.1)),
        ("views_a", lambda wrong: F.nt_xent_loss(wrong, ROWS, temperature=0.1)),
    ],
)
@pytest.mark.parametrize(
    "wrong", [ROWS.numpy(), ROWS.tolist(), None], ids=["array", "list", "none"]
)
def test_what_is_no_tensor_is_named(name, call, wrong):
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"`{name}` to be a torch.Tensor, but got {kind}"):
        call(wrong)


def test_a_temperature_that_is_no_number_is_named():
    for wrong in ("0.1", None, [0.1]):
        with pytest.raises(TypeError, match="`temperature` to be a number or a torch.Tensor"):
            F.vtov_loss(ROWS, LABELS, temperature=wrong)
