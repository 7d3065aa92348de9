"""Latent Gaussians of images and classes, and the samples that are drawn from them."""

import numpy as np
import pytest
import torch

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFASystem

F, A, D = 9, 7, 5


def new_system(**options):
    model = MCFA(F, A, MCFAConfig.paper("gzsl", latent_features=D, **options))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # wide log-variances, so that scales are told apart
        for vae in (model.visual, model.semantic):
            vae.encoder.logvar.bias.uniform_(-3, 1, generator=generator)
    return MCFASystem.of_model(model)


def make_features(rows, seed=0):
    return np.random.default_rng(seed).random((rows, F), dtype=np.float32)


def make_semantics(rows):
    return torch.rand(rows, A, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_chunks_give_what_the_whole_gives(rows, monkeypatch):
    monkeypatch.setattr(FeatureRows.chunks, "__defaults__", (3,))
    system, features = new_system(), make_features(rows)
    bank = system.image_bank(FeatureRows(features))
    assert len(bank) == rows
    wanted = system.model.encode_visual(torch.tensor(features))
    for ours, theirs in zip((bank.mean, bank.logvar), wanted, strict=True):
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("error")
def test_encodes_a_read_only_half_precision_memory_map(tmp_path):
    features = make_features(6).astype(np.float16)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    system = new_system()
    bank = system.image_bank(FeatureRows(mapped).take(np.array([4, 1])))
    wanted, _ = system.model.encode_visual(torch.tensor(features[[4, 1]].astype(np.float32)))
    torch.testing.assert_close(bank.mean, wanted)


@pytest.mark.parametrize("scale", ["std", "variance"])
def test_samples_have_the_encoded_mean_and_scale(scale):
    system = new_system(sampling_scale=scale)
    semantics = make_semantics(3)
    counts = torch.tensor([20000, 0, 20000])
    bank = system.class_bank(semantics)
    drawn = bank.draw(counts, torch.Generator().manual_seed(1)).split(counts.tolist())
    for label in (0, 2):
        mean, logvar = (part.detach()[label] for part in system.model.encode_semantic(semantics))
        sigma = torch.exp(logvar / 2 if scale == "std" else logvar)
        assert ((drawn[label].mean(0) - mean).abs() < 5 * sigma / 20000**0.5).all()
        torch.testing.assert_close(drawn[label].std(0), sigma, rtol=0.03, atol=0)


@pytest.mark.parametrize("noise", ["element", "row"])
def test_noise_is_fresh_for_every_sample(noise):
    bank = new_system(noise=noise).class_bank(make_semantics(1))
    drawn = bank.draw(torch.tensor([50]), torch.Generator().manual_seed(1))
    standard = (drawn - bank.mean) / torch.exp(bank.logvar / 2)
    assert len(standard[:, 0].unique()) == 50
    shared = (standard - standard[:, :1]).abs().amax(dim=1) < 1e-4
    assert shared.all() if noise == "row" else not shared.any()


def test_joined_banks_draw_both():
    system = new_system()
    semantics = make_semantics(3)
    joined = system.class_bank(semantics[2:]).join(system.class_bank(semantics[:2]))
    counts = torch.tensor([2, 3, 1])
    drawn = joined.draw(counts, torch.Generator().manual_seed(3))
    plain = system.class_bank(semantics[[2, 0, 1]])
    torch.testing.assert_close(drawn, plain.draw(counts, torch.Generator().manual_seed(3)))


def test_a_bank_is_kept_as_tensors():
    system = new_system()
    bank = system.class_bank(make_semantics(3))
    loaded = system.load_bank(bank.state_dict())
    counts = torch.tensor([1, 2, 3])
    draws = [one.draw(counts, torch.Generator().manual_seed(3)) for one in (bank, loaded)]
    assert torch.equal(*draws)
