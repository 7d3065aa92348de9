"""The objective of MCFA against the paper's formula, written plainly."""

import pytest
import torch

from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss

F, A, D = 7, 5, 4


def make_model(config):
    return MCFA(F, A, config)


def make_batch(counts, classes=None, seed=0, dtype=torch.float64):
    """Features, semantics and shuffled labels with the given number of instances per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    features = torch.rand(len(labels), F, generator=generator, dtype=dtype)
    semantics = torch.randn(len(counts), A, generator=generator, dtype=dtype)
    return features, semantics, labels


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


PRESETS = {
    f"{preset.__name__}-{task}-{temperature}": preset(
        task,
        latent_features=D,
        visual_hidden=9,
        semantic_hidden=6,
        temperature=temperature,
        kl_weight=kl_weight,
    )
    for preset in (MCFAConfig.paper, MCFAConfig.reference)
    for task in ("zsl", "gzsl")
    for temperature, kl_weight in ((2.0, 1.0), (0.3, 0.7))
}


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
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


def test_contrast_of_means_does_not_depend_on_the_noise():
    batch = (torch.rand(9, F), torch.rand(3, A), torch.arange(9) % 3)
    for contrast, differs in (("means", False), ("samples", True)):
        config = MCFAConfig(contrast=contrast)
        model = MCFA(F, A, config)
        first, second = (
            MCFALoss(config)(model(*batch, torch.Generator().manual_seed(seed))) for seed in (0, 1)
        )
        assert (first.vtos != second.vtos) == (first.vtov != second.vtov) == differs
