"""The dual encoder is MCFA restricted to its two cross-modal losses, between linear means."""

import numpy as np
import pytest
import torch
from system_data import SEEN, A, F, assert_same_state, make_data
from torch.nn import functional

import mcfa_fast as mf
from mcfa_fast.systems.dual_encoder import DualEncoder, DualEncoderConfig, recommended
from mcfa_fast.systems.scaling import UnitScaler
from mcfa_fast.systems.trainer import Trainer
from mcfa_fast.systems.vae.networks import xavier_linear
from mcfa_fast.training.sampler import BatchSampler

CONFIG = DualEncoderConfig().replace(embedding_features=5, batch_size=16, epochs=4)

pytestmark = pytest.mark.usefixtures("one_thread")


class LinearMeans(torch.nn.Module):
    """Linear encoders and decoders of both modalities as MCFA draws them; only means are used."""

    def __init__(self, config):
        super().__init__()
        generator, width = config.generator("weights"), config.embedding_features
        layers = {}
        for name, features, gain in (("visual", F, 0.5), ("semantic", A, config.semantic_gain)):
            layers[name] = xavier_linear(features, width, generator, gain=gain)
            layers[f"{name}_logvar"] = xavier_linear(features, width, generator)
            layers[f"{name}_decoder"] = xavier_linear(width, features, generator)
        self.layers = torch.nn.ModuleDict(layers)


def train_mcfa_restricted(config, features, labels, semantics):
    """A plain loop over MCFA's public parts, drawing what MCFA draws from the same streams."""
    model = LinearMeans(config)
    scaler = UnitScaler(F).fit(features)
    semantic_scaler = UnitScaler(A).fit(semantics[:SEEN])
    scaled, descriptors = scaler(features), semantic_scaler(semantics)
    training, share = config.training, config.visual_dropout
    used = [*model.layers["visual"].parameters(), *model.layers["semantic"].parameters()]
    optimizer = torch.optim.Adam(used, lr=training.learning_rate, amsgrad=True, fused=True)
    sampler = BatchSampler(labels, training.batch_size, config.generator("sampler"))
    noise = config.generator("noise")
    for _ in range(training.epochs):
        for rows, classes, local in sampler:
            inputs = scaled[rows]
            if share:
                kept = torch.empty_like(inputs).bernoulli_(1 - share, generator=noise)
                inputs = inputs * (kept / (1 - share))
            visual = model.layers["visual"](inputs)
            semantic = model.layers["semantic"](descriptors[classes])
            for means in (visual, semantic):  # the samples of MCFA, which are not compared
                torch.randn(means.shape, generator=noise)
            _, vtos, stov = mf.functional.contrastive_losses(
                visual, semantic, local, temperature=config.temperature
            )
            optimizer.zero_grad()
            (config.vtos_weight * vtos + config.stov_weight * stov).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("dropout", [0.6, 0.0])
def test_it_is_bitwise_mcfa_restricted_to_its_two_losses(dropout):
    config = CONFIG.replace(visual_dropout=dropout)
    features, labels, semantics = make_data()
    maps = Trainer(config, features, labels, semantics).fit().maps
    expected = train_mcfa_restricted(config, features, labels, semantics).layers
    for name in ("visual", "semantic"):
        for ours, theirs in zip(
            getattr(maps, name).parameters(), expected[name].parameters(), strict=True
        ):
            assert torch.equal(ours, theirs), name


def test_embeddings_are_linear_in_unit_rows():
    features, labels, semantics = make_data()
    semantics[SEEN:] = 1e3  # of no influence on the scaling
    system = Trainer(CONFIG, features, labels, semantics).fit()
    unit = functional.normalize(features.double(), dim=1)
    centre = unit.mean(0)
    scaled = (unit - centre) / (1 - centre.square().sum()).sqrt()
    layer = system.maps.visual
    expected = scaled @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(system.embed(features).double(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        exported = torch.jit.script(system.encoder())(features)
    torch.testing.assert_close(exported.double(), expected, rtol=1e-5, atol=1e-5)
    seen = functional.normalize(semantics[:SEEN], dim=1)
    torch.testing.assert_close(system.maps.semantic_scaler.offset, seen.mean(0))
    scaled = system.scale_semantics(semantics)
    expected = system.maps.semantic(scaled)
    torch.testing.assert_close(system.prototypes(semantics), expected.detach())


def test_training_lowers_the_loss_and_resumes(tmp_path):
    data = make_data()
    whole = Trainer(CONFIG, *data)
    system = whole.fit()
    assert whole.history[-1]["total"] < 0.9 * whole.history[0]["total"]

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(CONFIG, *data, run_dir=tmp_path, on_epoch_end=stop).fit()
    resumed = Trainer(CONFIG, *data, run_dir=tmp_path).fit()
    assert_same_state(resumed, system)
    assert torch.equal(resumed.embed(data[0]), system.embed(data[0]))


def test_dropout_scales_what_it_keeps():
    features, labels, semantics = torch.ones(60, 400), torch.arange(60) % 4, torch.eye(5)
    config = CONFIG.replace(visual_dropout=0.75, batch_size=60)
    trainer = Trainer(config, features, labels, semantics)
    trainable = trainer.system.trainable(trainer._data)
    inputs = []
    trainer.system.maps.visual.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    (batch,) = trainable.epoch(1)
    trainable._losses(batch.inputs._replace(features=features))
    (seen,) = inputs
    assert set(seen.unique().tolist()) == {0.0, 4.0}
    assert seen.mean().item() == pytest.approx(1, abs=0.05)


def test_mixed_precision_trains_to_about_the_same():
    data = make_data()
    exact, rounded = (
        Trainer(CONFIG.replace(precision=precision), *data) for precision in ("float32", "bf16")
    )
    exact.fit(), rounded.fit()
    totals = [[row["total"] for row in one.history] for one in (exact, rounded)]
    assert totals[0] != totals[1]
    np.testing.assert_allclose(*totals, rtol=0.02)


def test_recommended_settings():
    zsl, gzsl = recommended("zsl"), recommended("gzsl")
    assert (zsl.options, gzsl.options) == ({}, {"visual_dropout": 0.5, "epochs": 16})
    assert set(zsl.heads) == set(gzsl.heads) == {"nearest"}
    assert zsl.selection == gzsl.selection == {}  # the default rule


def test_the_system_is_registered_as_the_recommended_one():
    classifier = mf.ZeroShotClassifier()
    run = classifier.run_config()
    assert (run.system, run.preset, run.head) == (DualEncoder.name, "recommended", "nearest")
    assert list(run.heads) == ["nearest"]
