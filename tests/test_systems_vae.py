"""Two aligned VAEs: layers, initial weights, encoding, sampling, one batch."""

import numpy as np
import pytest
import torch

from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss, MCFASystem
from mcfa_fast.systems.vae.networks import VAE

F, A, D = 7, 5, 4


def make_model(**options):
    options = {"latent_features": D, "visual_hidden": 9, "semantic_hidden": 6, **options}
    return MCFA(F, A, MCFAConfig(**options))


def encoder_of(model):
    return MCFASystem.of_model(model).encoder()


# Architecture and initial weights


def test_layers_are_those_of_the_paper():
    model = MCFA(512, 1024, MCFAConfig())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.ndim == 2}
    expected = {}
    for name, features, hidden in (("visual", 512, 512), ("semantic", 1024, 256)):
        expected |= {
            f"{name}.encoder.hidden.weight": (hidden, features),
            f"{name}.encoder.mean.weight": (64, hidden),
            f"{name}.encoder.logvar.weight": (64, hidden),
            f"{name}.decoder.0.weight": (hidden, 64),
            f"{name}.decoder.2.weight": (features, hidden),
        }
    assert shapes == expected


def test_weights_start_xavier_uniform_with_gain_half_and_zero_bias():
    for parameter in MCFA(300, 200, MCFAConfig()).parameters():
        if parameter.ndim == 1:
            assert not parameter.any()
            continue
        bound = 0.5 * (6 / sum(parameter.shape)) ** 0.5
        assert 0.98 * bound < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_weights_depend_on_the_seed_only():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = make_model(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = make_model(seed=3), make_model(seed=4)
    for name, value in first.visual.state_dict().items():
        assert torch.equal(value, again.visual.state_dict()[name])
    assert not torch.equal(first.visual.encoder.hidden.weight, other.visual.encoder.hidden.weight)


@pytest.mark.parametrize("decoder_hidden", [None, 11])
def test_vae_computes_linear_relu_linear(decoder_hidden):
    vae = VAE(F, 9, D, decoder_hidden, torch.Generator().manual_seed(0)).double()
    x = torch.randn(3, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = {name: value.detach().numpy() for name, value in vae.named_parameters()}
    hidden = np.maximum(x.numpy() @ w["encoder.hidden.weight"].T, 0)
    mean, logvar = vae(x)
    np.testing.assert_allclose(mean.detach(), hidden @ w["encoder.mean.weight"].T)
    np.testing.assert_allclose(logvar.detach(), hidden @ w["encoder.logvar.weight"].T)
    hidden = np.maximum(mean.detach().numpy() @ w["decoder.0.weight"].T, 0)
    decoded = hidden @ w["decoder.2.weight"].T
    np.testing.assert_allclose(vae.decode(mean).detach(), decoded)
    assert w["decoder.0.weight"].shape == (decoder_hidden or 9, D)


# Encoding and sampling


@pytest.fixture
def fitted():
    model = make_model()
    model.scaler.fit(torch.rand(20, F, generator=torch.Generator().manual_seed(0)) * 30)
    return model.eval(), torch.rand(6, F, generator=torch.Generator().manual_seed(1)) * 30


def test_encode_visual_scales_raw_features(fitted):
    model, raw = fitted
    expected = model.visual.encode(model.scaler(raw))
    for value, wanted in zip(model.encode_visual(raw), expected, strict=True):
        assert torch.equal(value, wanted)
    assert not torch.allclose(model.visual.encode(raw)[0], expected[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_encoders_can_be_scripted(fitted, tmp_path):
    model, raw = fitted
    torch.jit.script(encoder_of(model)).save(tmp_path / "visual.pt")
    visual = torch.jit.load(tmp_path / "visual.pt")
    semantic = torch.jit.script(model.semantic.encoder)
    descriptors = torch.eye(A)
    torch.testing.assert_close(visual(raw), model.encode_visual(raw)[0])
    torch.testing.assert_close(semantic(descriptors), model.encode_semantic(descriptors))
    with pytest.raises(torch.jit.Error, match=f"expected {F} features"):
        visual(torch.zeros(2, F + 1))


def test_encoders_can_be_exported(fitted):
    model, raw = fitted
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(encoder_of(model), (raw,), dynamic_shapes=({0: rows},))
    more = torch.cat([raw, raw * 2])
    torch.testing.assert_close(exported.module()(more), model.encode_visual(more)[0])


def test_encode_visual_names_the_number_of_features_it_expects():
    with pytest.raises(ValueError, match=f"expected {F} features per row, got 1"):
        make_model().encode_visual(torch.zeros(2, 1))


@pytest.mark.parametrize("shape", [(2, A + 1), (A,), (1, 2, A)])
def test_encoders_name_the_shape_they_expect(shape):
    with pytest.raises(ValueError, match=rf"expected (\[N, {A}\]|{A} features per row)"):
        make_model().encode_semantic(torch.zeros(shape))


@pytest.mark.parametrize("scale", ["std", "variance"])
@pytest.mark.parametrize("noise", ["element", "row"])
def test_sample_follows_the_options(scale, noise):
    model = make_model(sampling_scale=scale, noise=noise)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4000, D, generator=generator)
    logvar = torch.randn(4000, D, generator=generator)
    latents = model.sample(mean, logvar, torch.Generator().manual_seed(5))
    sigma = torch.exp(logvar / 2) if scale == "std" else torch.exp(logvar)
    epsilon = (latents - mean) / sigma
    shared = bool((epsilon - epsilon[:, :1]).abs().max() < 1e-3)
    assert shared == (noise == "row")
    assert epsilon.mean().abs() < 0.06
    assert epsilon.std().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(latents, model.sample(mean, logvar, torch.Generator().manual_seed(5)))


# One batch


def make_batch(counts, classes=None, seed=0, dtype=torch.float64):
    """Features, semantics and shuffled labels with the given number of instances per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    features = torch.rand(len(labels), F, generator=generator, dtype=dtype)
    semantics = torch.randn(len(counts), A, generator=generator, dtype=dtype)
    return features, semantics, labels


def test_forward_decodes_each_latent_in_both_modalities():
    model = make_model().double()
    features, semantics, labels = make_batch([3, 1, 0])
    output = model(features, semantics, labels, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    visual = model.sample(*model.visual.encode(features), generator)
    semantic = model.sample(*model.semantic.encode(semantics), generator)
    expected = {
        "features": features,
        "semantics": semantics,
        "labels": labels,
        "visual_latents": visual,
        "semantic_latents": semantic,
        "visual_reconstruction": model.visual.decode(visual),
        "semantic_reconstruction": model.semantic.decode(semantic),
        "visual_from_semantic": model.visual.decode(semantic),
        "semantic_from_visual": model.semantic.decode(visual),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(output, name), value)


def test_forward_checks_labels():
    model = make_model().double()
    features, semantics, labels = make_batch([2, 2])
    with pytest.raises(TypeError, match=r"labels: expected int64, got torch\.int32"):
        model(features, semantics, labels.int())
    with pytest.raises(ValueError, match=r"labels: expected one per row of features \[4\]"):
        model(features, semantics, labels[:3])


def test_without_weight_nothing_is_decoded():
    config = MCFAConfig(reconstruction_weight=0, cross_reconstruction_weight=0)
    model = MCFA(F, A, config)
    output = model(torch.rand(9, F), torch.rand(3, A), torch.arange(9) % 3)
    assert output.visual_reconstruction is output.semantic_from_visual is None
    losses = MCFALoss(config)(output)
    assert losses.reconstruction == losses.cross_reconstruction == 0
    losses.total.backward()
    assert all(parameter.grad is None for parameter in model.visual.decoder.parameters())
