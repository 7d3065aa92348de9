"""CADA-VAE: the authors' widths and schedule, and what its objective is."""

import pytest
import torch
from system_data import A, F, assert_same_state, make_data, make_training_data

from mcfa_fast.systems.cada_vae import CADAVAE, CADAVAEConfig, paper, reference
from mcfa_fast.systems.fit import fit
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.systems.vae.step import TermWeights

SMALL = {
    "latent_features": 5,
    "visual_hidden": 9,
    "visual_decoder_hidden": 11,
    "semantic_hidden": 7,
    "semantic_decoder_hidden": 6,
    "batch_size": 16,
    "epochs": 3,
}
CONFIG = CADAVAEConfig().replace(**SMALL)
CONSTANT = {
    "kl_warmup": None,
    "cross_reconstruction_warmup": None,
    "alignment_warmup": None,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_batch(counts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = torch.rand(len(labels), F, generator=generator, dtype=dtype)
    return features, torch.randn(len(counts), A, generator=generator, dtype=dtype), labels


# The authors' code (single_experiment.py)


def test_layers_are_the_authors():
    model = CADAVAE(CADAVAEConfig(), 2048, 85).model
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.ndim == 2}
    assert shapes == {
        "visual.encoder.hidden.weight": (1560, 2048),
        "visual.encoder.mean.weight": (64, 1560),
        "visual.encoder.logvar.weight": (64, 1560),
        "visual.decoder.0.weight": (1660, 64),
        "visual.decoder.2.weight": (2048, 1660),
        "semantic.encoder.hidden.weight": (1450, 85),
        "semantic.encoder.mean.weight": (64, 1450),
        "semantic.encoder.logvar.weight": (64, 1450),
        "semantic.decoder.0.weight": (665, 64),
        "semantic.decoder.2.weight": (85, 665),
    }


# Weight in epoch e, counted from 0, of the authors' schedule.
SCHEDULE = {
    0: (0, 0, 0),
    10: (0.0269, 0, 2.0325),
    22: (0.0591, 0.0439, 8.13),
    50: (0.1344, 1.2728, 8.13),
    75: (0.2016, 2.37, 8.13),
    99: (0.25, 2.37, 8.13),
}


@pytest.mark.parametrize(("epoch", "expected"), SCHEDULE.items())
def test_weights_grow_as_in_the_authors_code(epoch, expected):
    weights = CADAVAE(CADAVAEConfig(), F, A).weights(epoch + 1)
    found = weights.kl, weights.cross_reconstruction, weights.alignment
    assert tuple(round(value, 4) for value in found) == expected
    assert weights.reconstruction == 1
    assert (weights.vtov, weights.vtos, weights.stov) == (0, 0, 0)


def test_training_and_classifier_are_the_authors():
    training = CADAVAEConfig().training
    assert (training.sampler, training.batch_size, training.epochs) == ("batch", 50, 100)
    assert training.learning_rate == 1.5e-4
    for preset in (paper, reference):
        softmax = preset("zsl").heads["softmax"], preset("gzsl").heads["softmax"]
        assert [one["unseen_samples"] for one in softmax] == [200, 400]
        assert softmax[1]["seen_samples"] == 200


def test_reference_follows_the_code_in_its_noise():
    config = CADAVAEConfig().replace(**reference("gzsl").options)
    assert (config.sampling_scale, config.noise) == ("variance", "row")
    softmax = reference("gzsl").heads["softmax"]
    assert (softmax["seen_choice"], softmax["resample"], softmax["drop_last"]) == (
        "first",
        False,
        True,
    )


# The objective


def test_total_is_the_weighted_sum_with_each_epochs_weights():
    warmups = {
        "kl_warmup": (0, 2),
        "cross_reconstruction_warmup": None,
        "alignment_warmup": (2, 3),
    }
    trainer = Trainer(CONFIG.replace(**warmups, epochs=4), *make_data())
    trainer.fit()
    factors = [(0, 0), (0.5, 0), (1, 0), (1, 1)]  # the first epoch has number 0
    for losses, (kl, alignment) in zip(trainer.history, factors, strict=True):
        weighted = (
            losses["reconstruction"]
            + 0.25 * kl * losses["kl"]
            + 2.37 * losses["cross_reconstruction"]
            + 8.13 * alignment * losses["alignment"]
        )
        assert losses["total"] == pytest.approx(weighted, rel=1e-6)


def objective_of(system, batch, weights, seed=0):
    output = system.model.double()(*batch, torch.Generator().manual_seed(seed))
    return output, system.objective()(output, weights)


def test_terms_are_the_plain_formula():
    system = CADAVAE(CONFIG, F, A)
    weights = TermWeights(1.0, 0.25, 2.37, 8.13)
    output, losses = objective_of(system, make_batch([3, 1, 2]), weights)
    y = output.labels
    zs = {name: getattr(output, f"semantic_{name}")[y] for name in ("mean", "logvar")}
    cross = (output.visual_from_semantic[y] - output.features).abs().sum()
    cross = cross + (output.semantic_from_visual - output.semantics[y]).abs().sum()
    own = (output.visual_reconstruction - output.features).abs().sum()
    own = own + (output.semantic_reconstruction - output.semantics)[y].abs().sum()
    kl = sum(
        -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum()
        for mean, logvar in (
            (output.visual_mean, output.visual_logvar),
            (zs["mean"], zs["logvar"]),
        )
    )
    apart = (output.visual_mean - zs["mean"]).square().sum(1)
    deviations = (output.visual_logvar / 2).exp() - (zs["logvar"] / 2).exp()
    alignment = (apart + deviations.square().sum(1)).sqrt().sum()
    terms = {"reconstruction": own, "kl": kl, "cross_reconstruction": cross, "alignment": alignment}
    for name, value in terms.items():
        torch.testing.assert_close(getattr(losses, name), value, rtol=1e-9, atol=1e-9)
    total = own + 0.25 * kl + 2.37 * cross + 8.13 * alignment
    torch.testing.assert_close(losses.total, total, rtol=1e-9, atol=1e-9)


def test_without_cross_terms_the_vaes_are_independent():
    """γ = δ = 0: neither modality's weights depend on the other's inputs."""
    config = CONFIG.replace(cross_reconstruction_weight=0, alignment_weight=0, **CONSTANT)
    features, labels, semantics = make_data()
    own = Trainer(config, features, labels, semantics).fit().state_dict()
    other_words = Trainer(config, features, labels, 3 * semantics + 1).fit().state_dict()
    other_images = Trainer(config, features.flip(1), labels, semantics).fit().state_dict()
    for name, value in own.items():
        kept, changed = other_words, other_images
        if name.startswith("semantic."):
            kept, changed = changed, kept
        if name.startswith(("visual.", "semantic.")):
            torch.testing.assert_close(kept[name], value, rtol=1e-5, atol=1e-6)
    for name, changed in (("visual", other_images), ("semantic", other_words)):
        weight = f"{name}.encoder.hidden.weight"
        assert not torch.allclose(changed[weight], own[weight], atol=1e-4)


def test_identical_gaussians_are_at_distance_0_with_gradient_0():
    system = CADAVAE(CONFIG, F, A)
    output, _ = objective_of(system, make_batch([2, 2]), system.weights(100))
    mean = output.semantic_mean.detach()[output.labels].requires_grad_()
    logvar = output.semantic_logvar.detach()[output.labels].requires_grad_()
    same = output._replace(
        visual_mean=mean,
        visual_logvar=logvar,
        semantic_mean=output.semantic_mean.detach(),
        semantic_logvar=output.semantic_logvar.detach(),
    )
    alignment = system.objective()(same, system.weights(100)).alignment
    assert alignment == 0
    for gradient in torch.autograd.grad(alignment, [mean, logvar]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_batch_of_one_keeps_its_dimension():
    system = CADAVAE(CONFIG, F, A)
    output, losses = objective_of(system, make_batch([1]), system.weights(100))
    assert output.visual_latents.shape == output.semantic_latents.shape == (1, 5)
    assert output.visual_reconstruction.shape == (1, F)
    assert losses.total.isfinite() and losses.total.shape == ()
    trainer = Trainer(CONFIG.replace(batch_size=1, epochs=1), *make_data(rows_per_class=2))
    trainer.fit()
    assert trainer.history[0]["total"] > 0


def test_native_training_is_the_eager_one():
    """The two ways to take a step differ by rounding only, with weights that change by epoch."""
    warmups = {"kl_warmup": (0, 2), "cross_reconstruction_warmup": (0, 1), "alignment_warmup": None}
    config = CONFIG.replace(learning_rate=1e-2, **warmups)
    native, eager = CADAVAE(config, F, A), CADAVAE(config, F, A)
    eager.contrasts = lambda: None
    for system in (native, eager):
        fit(system, make_training_data())
    for name, value in native.state_dict().items():
        torch.testing.assert_close(value, eager.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_interrupted_training_goes_on_with_the_weights_of_its_epoch(tmp_path):
    warmups = {"kl_warmup": (0, 3), "cross_reconstruction_warmup": (1, 3), "alignment_warmup": None}
    config = CONFIG.replace(**warmups)

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config, *make_data(), run_dir=tmp_path, on_epoch_end=stop).fit()
    resumed = Trainer(config, *make_data(), run_dir=tmp_path).fit()
    assert_same_state(resumed, Trainer(config, *make_data()).fit())


@pytest.mark.parametrize("name", ["kl_warmup", "cross_reconstruction_warmup", "alignment_warmup"])
@pytest.mark.parametrize("value", [(3, 3), (5, 2), (-1, 4)])
def test_warmups_that_do_not_grow_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}[\s\S]*0 <= first < last"):
        CADAVAEConfig(**{name: value})
