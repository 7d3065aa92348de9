"""Scaler, VAEs, the aligned model and its objective."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler as SklearnMinMaxScaler

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.models import MCFA, VAE, MCFALoss, MinMaxScaler, UnitScaler

F, A, D = 7, 5, 4


def make_model(config=None, **options):
    config = config or MCFAConfig(latent_features=D, visual_hidden=9, semantic_hidden=6, **options)
    return MCFA(F, A, config)


# Scaler


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


def test_vae_computes_linear_relu_linear():
    vae = VAE(F, 9, D, torch.Generator().manual_seed(0)).double()
    x = torch.randn(3, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = {name: value.detach().numpy() for name, value in vae.named_parameters()}
    hidden = np.maximum(x.numpy() @ w["encoder.hidden.weight"].T, 0)
    mean, logvar = vae(x)
    np.testing.assert_allclose(mean.detach(), hidden @ w["encoder.mean.weight"].T)
    np.testing.assert_allclose(logvar.detach(), hidden @ w["encoder.logvar.weight"].T)
    hidden = np.maximum(mean.detach().numpy() @ w["decoder.0.weight"].T, 0)
    decoded = hidden @ w["decoder.2.weight"].T
    np.testing.assert_allclose(vae.decode(mean).detach(), decoded)


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
    torch.jit.script(model.visual_encoder()).save(tmp_path / "visual.pt")
    visual = torch.jit.load(tmp_path / "visual.pt")
    semantic = torch.jit.script(model.semantic.encoder)
    descriptors = torch.eye(A)
    torch.testing.assert_close(visual(raw), model.encode_visual(raw))
    torch.testing.assert_close(semantic(descriptors), model.encode_semantic(descriptors))
    with pytest.raises(torch.jit.Error, match=f"expected {F} features"):
        visual(torch.zeros(2, F + 1))


def test_encoders_can_be_exported(fitted):
    model, raw = fitted
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(model.visual_encoder(), (raw,), dynamic_shapes=({0: rows},))
    more = torch.cat([raw, raw * 2])
    torch.testing.assert_close(exported.module()(more), model.encode_visual(more))


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


# Objective


def plain_losses(output, config):
    """Eq. 7 with loops over instances, classes and pairs, straight from the paper."""
    o, y, n = output, output.labels.tolist(), len(output.labels)
    zero = torch.zeros((), dtype=o.features.dtype)

    def l1(a, b):
        return sum((abs(p - q) for p, q in zip(a, b, strict=True)), zero)

    def kl(mean, logvar):
        return -sum((1 + v - m * m - v.exp() for m, v in zip(mean, logvar, strict=True)), zero) / 2

    def contrast(anchor, others, positives):
        def similarity(other):
            return anchor @ other / anchor.norm() / other.norm() / config.temperature

        total = sum((similarity(other).exp() for other in others), zero).log()
        if config.positives == "out":
            return sum((total - similarity(p) for p in positives), zero) / len(positives)
        return total - (sum(similarity(p).exp() for p in positives) / len(positives)).log()

    if config.class_weighting == "instances":
        class_rows = y
    else:
        class_rows = sorted(set(y))
    zv, zs = o.visual_latents, o.semantic_latents
    names = ("reconstruction", "kl", "cross_reconstruction", "alignment", "vtov", "vtos", "stov")
    terms = dict.fromkeys(names, zero)

    def add(name, value):
        terms[name] = terms[name] + value

    for c in class_rows:
        add("reconstruction", l1(o.semantic_reconstruction[c], o.semantics[c]))
        add("kl", kl(o.semantic_mean[c], o.semantic_logvar[c]))
    for i, c in enumerate(y):
        add("reconstruction", l1(o.visual_reconstruction[i], o.features[i]))
        add("kl", kl(o.visual_mean[i], o.visual_logvar[i]))
        add("cross_reconstruction", l1(o.visual_from_semantic[c], o.features[i]))
        add("cross_reconstruction", l1(o.semantic_from_visual[i], o.semantics[c]))
        apart = (o.visual_mean[i] - o.semantic_mean[c]).square().sum()
        deviations = (o.visual_logvar[i] / 2).exp() - (o.semantic_logvar[c] / 2).exp()
        add("alignment", (apart + deviations.square().sum()).sqrt())
        others = [j for j in range(n) if j != i]
        positives = [j for j in others if y[j] == c]
        if positives:
            add("vtov", contrast(zv[i], zv[others], zv[positives]))
        add("vtos", contrast(zv[i], zs, zs[[c]]))
    for c in set(y):
        add("stov", contrast(zs[c], zv, zv[[i for i in range(n) if y[i] == c]]))
    terms["total"] = (
        terms["reconstruction"]
        + config.kl_weight * terms["kl"]
        + config.cross_reconstruction_weight * terms["cross_reconstruction"]
        + config.alignment_weight * terms["alignment"]
        + config.vtov_weight * terms["vtov"]
        + config.vtos_weight * terms["vtos"]
        + config.stov_weight * terms["stov"]
    )
    return terms


PRESETS = [
    preset(task, latent_features=D, visual_hidden=9, semantic_hidden=6, **options)
    for preset in (MCFAConfig.paper, MCFAConfig.reference)
    for task in ("zsl", "gzsl")
    for options in ({}, {"temperature": 0.3, "kl_weight": 0.7})
]


@pytest.mark.parametrize(
    "config", PRESETS, ids=[f"{c.mode}-{c.task}-{c.temperature}" for c in PRESETS]
)
@pytest.mark.parametrize("counts", [[3, 3, 3], [4, 1, 0, 2], [1], [5]], ids=str)
def test_objective_and_gradients_agree_with_the_plain_formula(config, counts):
    model = make_model(config).double()
    batch = make_batch(counts)
    output = model(*batch, torch.Generator().manual_seed(1))
    losses = MCFALoss(config)(output)
    expected = plain_losses(output, config)
    for name, value in losses._asdict().items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-9, abs=1e-12), name

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(losses.total, parameters, retain_graph=True)
    wanted = torch.autograd.grad(expected["total"], parameters)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-8, atol=1e-9)


def test_absent_class_is_only_a_negative_of_vtos():
    config = MCFAConfig(latent_features=D)
    model = make_model(config).double()
    features, semantics, labels = make_batch([3, 2, 0])

    def losses(rows):
        output = model(features, semantics[:rows], labels, torch.Generator().manual_seed(1))
        return MCFALoss(config)(output)._asdict()

    present, all_rows = losses(2), losses(3)
    assert all_rows.pop("vtos") > present.pop("vtos")
    all_rows.pop("total"), present.pop("total")
    for name, value in present.items():
        assert value.item() == pytest.approx(all_rows[name].item(), rel=1e-9), name


def test_objective_refuses_labels_without_a_class():
    config = MCFAConfig(latent_features=D)
    features, semantics, labels = make_batch([2, 2])
    output = make_model(config).double()(features, semantics, labels)
    with pytest.raises(ValueError, match="labels"):
        MCFALoss(config)(output._replace(labels=labels + 1))


def test_model_and_objective_compile_into_one_graph():
    config = MCFAConfig(latent_features=D)
    model, objective = make_model(config).double(), MCFALoss(config)
    batch = make_batch([3, 2])
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    output = model(*batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(compiled(output), objective(output))
    step = torch.compile(lambda *batch: objective(model(*batch)), fullgraph=True, backend="eager")
    assert step(*batch).total.isfinite()


def test_float32_objective_is_near_float64():
    config = MCFAConfig(latent_features=D)
    model = make_model(config)
    batch = make_batch([40, 7, 1], dtype=torch.float32)
    output = model(*batch, torch.Generator().manual_seed(1))
    single = MCFALoss(config)(output)
    double = MCFALoss(config)(
        type(output)(*(t.double() if t.is_floating_point() else t for t in output))
    )
    for name, value in single._asdict().items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(getattr(double, name).item(), rel=1e-5), name


# Options beyond the paper's


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


def test_linear_model_has_one_map_per_direction():
    config = MCFAConfig(visual_hidden=None, semantic_hidden=None, latent_features=3)
    model = MCFA(F, A, config)
    shapes = {name: list(value.shape) for name, value in model.visual.named_parameters()}
    assert shapes == {
        "encoder.mean.weight": [3, F],
        "encoder.mean.bias": [3],
        "encoder.logvar.weight": [3, F],
        "encoder.logvar.bias": [3],
        "decoder.0.weight": [F, 3],
        "decoder.0.bias": [F],
    }
    rows = torch.rand(4, F)
    encoder = model.visual.encoder
    torch.testing.assert_close(model.visual.encode(rows)[0], encoder.mean(rows))
    torch.testing.assert_close(torch.jit.script(encoder)(rows)[1], encoder.logvar(rows))


def test_dropout_scales_what_it_keeps_and_rests_outside_training():
    config = MCFAConfig(visual_dropout=0.75, semantic_dropout=0.5)
    model = MCFA(400, 300, config)
    inputs = []
    for side in (model.visual, model.semantic):
        side.encoder.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    batch = (torch.ones(50, 400), torch.ones(20, 300), torch.arange(50) % 20)
    model(*batch, torch.Generator().manual_seed(0))
    for values, share in zip(inputs, (0.75, 0.5), strict=True):
        assert set(values.unique().tolist()) == {0.0, 1 / (1 - share)}
        assert values.mean().item() == pytest.approx(1, abs=0.05)
    inputs.clear()
    model.eval()(*batch, torch.Generator().manual_seed(0))
    assert all(torch.equal(values, torch.ones_like(values)) for values in inputs)


def test_contrast_of_means_does_not_depend_on_the_noise():
    batch = (torch.rand(9, F), torch.rand(3, A), torch.arange(9) % 3)
    for contrast, differs in (("means", False), ("samples", True)):
        config = MCFAConfig(contrast=contrast)
        model = MCFA(F, A, config)
        first, second = (
            MCFALoss(config)(model(*batch, torch.Generator().manual_seed(seed))) for seed in (0, 1)
        )
        assert (first.vtos != second.vtos) == (first.vtov != second.vtov) == differs


def test_without_weight_nothing_is_decoded():
    config = MCFAConfig(reconstruction_weight=0, cross_reconstruction_weight=0)
    model = MCFA(F, A, config)
    output = model(torch.rand(9, F), torch.rand(3, A), torch.arange(9) % 3)
    assert output.visual_reconstruction is output.semantic_from_visual is None
    losses = MCFALoss(config)(output)
    assert losses.reconstruction == losses.cross_reconstruction == 0
    losses.total.backward()
    assert all(parameter.grad is None for parameter in model.visual.decoder.parameters())
