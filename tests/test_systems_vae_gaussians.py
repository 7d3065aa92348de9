"""Encoding in chunks, and the latents that classifiers are trained on."""

import numpy as np
import pytest
import torch

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.inference import class_latents, encode_images, image_latents, latents
from mcfa_fast.models import MCFA

F, A, D = 9, 7, 5


def new_model(**options):
    model = MCFA(F, A, MCFAConfig.paper("gzsl", latent_features=D, **options))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # wide log-variances, so that scales are told apart
        for vae in (model.visual, model.semantic):
            vae.encoder.logvar.bias.uniform_(-3, 1, generator=generator)
    return model


def make_features(rows, seed=0):
    return np.random.default_rng(seed).random((rows, F), dtype=np.float32)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_chunks_give_what_the_whole_gives(rows, monkeypatch):
    monkeypatch.setattr(latents, "_ROWS_PER_CHUNK", 3)
    model, features = new_model(), make_features(rows)
    encoded = encode_images(model, features)
    for ours, wanted in zip(encoded, model.encode_visual(torch.tensor(features)), strict=True):
        assert not ours.requires_grad
        torch.testing.assert_close(ours, wanted)


@pytest.mark.filterwarnings("error")
def test_encodes_a_read_only_half_precision_memory_map(tmp_path):
    features = make_features(6).astype(np.float16)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    model = new_model()
    mean, _ = encode_images(model, mapped)
    wanted, _ = model.encode_visual(torch.tensor(features.astype(np.float32)))
    torch.testing.assert_close(mean, wanted)


def test_first_images_are_taken_in_order_and_repeated_in_turn():
    features = make_features(9)
    labels = np.array([4, 2, 4, 4, 2, 4, 7, 4, 4])
    model = new_model()
    bank = image_latents(
        model, features, labels, per_class=5, choice="first", generator=torch.Generator()
    )
    expected = {2: [1, 4, 1, 4, 1], 4: [0, 2, 3, 5, 7], 7: [6, 6, 6, 6, 6]}
    means = encode_images(model, features)[0]
    for label, rows in expected.items():
        own = bank.labels == label
        drawn = bank.mean[own].repeat_interleave(bank.counts[own], dim=0)
        torch.testing.assert_close(drawn, means[sorted(rows)])


def test_random_images_are_distinct_images_of_the_class():
    features = make_features(60)
    labels = np.repeat([3, 8], 30)
    model = new_model()
    chosen = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        bank = image_latents(
            model, features, labels, per_class=10, choice="random", generator=generator
        )
        assert bank.labels.tolist() == [3] * 10 + [8] * 10
        assert bank.counts.tolist() == [1] * 20
        distances = torch.cdist(bank.mean, encode_images(model, features)[0])
        rows = distances.argmin(dim=1)
        assert distances.amin(dim=1).max() < 1e-3
        assert len(rows.unique()) == 20
        assert (labels[rows] == bank.labels.numpy()).all()
        chosen.append(set(rows.tolist()))
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("scale", ["std", "variance"])
def test_drawn_latents_have_the_encoded_mean_and_scale(scale):
    model = new_model(sampling_scale=scale)
    semantics = torch.rand(3, A, generator=torch.Generator().manual_seed(0))
    bank = class_latents(model, semantics, torch.tensor([0, 2]), per_class=20000)
    drawn, labels = bank.draw(model, torch.Generator().manual_seed(1))
    assert labels.bincount().tolist() == [20000, 0, 20000]
    for label in (0, 2):
        mean, logvar = (part.detach()[label] for part in model.encode_semantic(semantics))
        sigma = torch.exp(logvar / 2 if scale == "std" else logvar)
        own = drawn[labels == label]
        assert ((own.mean(0) - mean).abs() < 5 * sigma / 20000**0.5).all()
        torch.testing.assert_close(own.std(0), sigma, rtol=0.03, atol=0)


@pytest.mark.parametrize("noise", ["element", "row"])
def test_noise_is_fresh_for_every_latent(noise):
    model = new_model(noise=noise)
    semantics = torch.rand(1, A, generator=torch.Generator().manual_seed(0))
    bank = class_latents(model, semantics, torch.tensor([0]), per_class=50)
    drawn, _ = bank.draw(model, torch.Generator().manual_seed(1))
    standard = (drawn - bank.mean) / torch.exp(bank.logvar / 2)
    assert len(standard[:, 0].unique()) == 50
    shared = (standard - standard[:, :1]).abs().amax(dim=1) < 1e-4
    assert shared.all() if noise == "row" else not shared.any()


def test_joined_banks_draw_both():
    model = new_model()
    semantics = torch.rand(3, A, generator=torch.Generator().manual_seed(0))
    first = class_latents(model, semantics, torch.tensor([2]), per_class=2)
    second = class_latents(model, semantics, torch.tensor([0, 1]), per_class=3)
    _, labels = first.join(second).draw(model, torch.Generator())
    assert labels.tolist() == [2, 2, 0, 0, 0, 1, 1, 1]
