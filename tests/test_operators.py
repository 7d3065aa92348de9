"""The operators in PyTorch: opcheck, gradcheck, TorchScript, compile, export, autocast."""

import functools
import io

import pytest
import torch

import mcfa_fast as mf
from mcfa_fast import functional, reference


def inputs(dtype=torch.float32, instances=14, classes=3, width=5):
    generator = torch.Generator().manual_seed(0)
    visual = torch.randn(instances, width, dtype=dtype, generator=generator, requires_grad=True)
    semantic = torch.randn(classes, width, dtype=dtype, generator=generator, requires_grad=True)
    labels = torch.randint(0, classes, (instances,), generator=generator)
    labels[4] = -100
    return visual, semantic, labels


def contrastive_samples():
    visual, semantic, labels = inputs()
    temperature = torch.tensor(0.5, requires_grad=True)
    for positives in ("out", "in"):
        for reduction in ("sum", "none"):
            options = (positives, reduction, True, -100)
            yield (visual, semantic, labels, temperature, True, True, True, *options)
            yield (visual, None, labels, temperature, True, False, False, *options)


def wasserstein_samples():
    visual, semantic, labels = inputs()
    labels = labels.clamp(min=0)
    for reduction in ("mean", "none"):
        yield (visual, visual.detach() / 2, semantic, semantic.detach() / 2, labels, reduction)
        yield (
            visual,
            visual.detach() / 2,
            visual.detach() / 3,
            visual.detach() / 4,
            None,
            reduction,
        )


def l1_samples():
    instances, table, labels = inputs()
    labels = labels.clamp(min=0)
    for reduction in ("mean", "none"):
        yield instances, table, labels, reduction
        yield instances.detach(), table, labels, reduction
        yield instances, table.detach(), labels, reduction
        yield instances, instances.detach() / 2, None, reduction


def reparameterize_samples():
    mean, _, _ = inputs()
    logvar = (mean / 2).detach().requires_grad_()
    for noise in (-mean.detach(), -mean.detach()[:, :1]):
        yield mean, logvar, noise, 0.5
        yield mean.detach(), logvar, noise, 1.0
        yield mean, logvar.detach(), noise, 1.0


@pytest.mark.parametrize("sample", list(contrastive_samples()))
def test_opcheck_contrastive(sample):
    torch.library.opcheck(torch.ops.mcfa_fast.contrastive_forward.default, sample)


@pytest.mark.parametrize("sample", list(wasserstein_samples()))
def test_opcheck_wasserstein(sample):
    torch.library.opcheck(torch.ops.mcfa_fast.wasserstein_forward.default, sample)


@pytest.mark.parametrize("sample", list(l1_samples()))
def test_opcheck_l1(sample):
    torch.library.opcheck(torch.ops.mcfa_fast.l1_forward.default, sample)


@pytest.mark.parametrize("sample", list(reparameterize_samples()))
def test_opcheck_reparameterize(sample):
    torch.library.opcheck(torch.ops.mcfa_fast.reparameterize_forward.default, sample)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_opcheck_kl(reduction):
    mean, logvar, _ = inputs()
    torch.library.opcheck(
        torch.ops.mcfa_fast.kl_forward.default, (mean, logvar[:1] + mean, reduction)
    )


def test_opcheck_backward_operators():
    visual, semantic, labels = (tensor.detach() for tensor in inputs())
    options = ("in", "sum", True, -100)
    temperature = torch.tensor(0.5)
    losses = torch.ops.mcfa_fast.contrastive_forward(
        visual, semantic, labels, temperature, True, True, True, *options
    )
    torch.library.opcheck(
        torch.ops.mcfa_fast.contrastive_backward.default,
        (*losses[:3], visual, semantic, labels, temperature, *losses[3:], *options),
    )
    gaussians = (visual, visual / 2, semantic, semantic / 2, labels.clamp(min=0), "sum")
    loss, distance = torch.ops.mcfa_fast.wasserstein_forward(*gaussians)
    torch.library.opcheck(
        torch.ops.mcfa_fast.wasserstein_backward.default, (loss, distance, *gaussians)
    )
    torch.library.opcheck(
        torch.ops.mcfa_fast.kl_backward.default, (loss, visual, visual / 2, "sum")
    )
    for mask in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(
            torch.ops.mcfa_fast.l1_backward.default,
            (loss, visual, semantic, labels.clamp(min=0), "sum", mask),
        )
    torch.library.opcheck(
        torch.ops.mcfa_fast.reparameterize_backward.default,
        (visual, visual / 2, visual[:, :1], 0.5),
    )


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck_contrastive(positives, normalize, reduction):
    visual, semantic, labels = inputs(torch.float64)
    temperature = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    def losses(visual, semantic, temperature):
        return tuple(
            functional.contrastive_losses(
                visual,
                semantic,
                labels,
                temperature=temperature,
                positives=positives,
                normalize=normalize,
                reduction=reduction,
            )
        )

    assert torch.autograd.gradcheck(losses, (visual, semantic, temperature))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradcheck_wasserstein(reduction):
    visual, semantic, labels = inputs(torch.float64)
    gaussians = (
        visual,
        (visual / 2).detach().requires_grad_(),
        semantic,
        (semantic / 2).detach().requires_grad_(),
    )

    def loss(*tensors):
        return functional.wasserstein_alignment(*tensors, labels.clamp(min=0), reduction=reduction)

    assert torch.autograd.gradcheck(loss, gaussians)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck_kl(reduction):
    mean, logvar, _ = inputs(torch.float64)
    logvar = (logvar.detach()[:1] + mean.detach() / 2).requires_grad_()
    loss = functools.partial(functional.kl_divergence, reduction=reduction)
    assert torch.autograd.gradcheck(loss, (mean, logvar))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("labelled", [True, False])
def test_gradcheck_l1(labelled, reduction):
    instances, table, labels = inputs(torch.float64)
    if not labelled:
        table, labels = (instances / 2).detach().requires_grad_(), None
    else:
        labels = labels.clamp(min=0)

    def loss(instances, table):
        return functional.l1_reconstruction(instances, table, labels, reduction=reduction)

    assert torch.autograd.gradcheck(loss, (instances, table))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_gradcheck_reparameterize(power):
    mean, _, _ = inputs(torch.float64)
    logvar = (mean / 2).detach().requires_grad_()
    for noise in (-mean.detach(), -mean.detach()[:, :1]):
        sample = functools.partial(functional.reparameterize, noise=noise, power=power)
        assert torch.autograd.gradcheck(sample, (mean, logvar))


class Sampler(torch.nn.Module):
    """The sampling, which has no module of its own, for the tests of modules."""

    def __init__(self, noise):
        super().__init__()
        self.register_buffer("noise", noise)

    def forward(self, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return mf.ops.reparameterize(mean, logvar, self.noise, 0.5)


def modules():
    visual, semantic, labels = inputs()
    kept = labels.clamp(min=0)
    learnable = torch.nn.Parameter(torch.tensor(0.3))
    yield mf.VtoVLoss(0.5, positives="in"), (visual, labels)
    yield mf.VtoSLoss(0.5, reduction="none"), (visual, semantic, labels)
    yield mf.StoVLoss(0.5, normalize=False), (visual, semantic, labels)
    yield mf.ContrastiveLosses(learnable, reduction="mean"), (visual, semantic, labels)
    yield mf.WassersteinAlignment(), (visual, visual / 2, semantic, semantic / 2, kept)
    yield mf.KLDivergence(reduction="mean"), (visual, visual / 2)
    yield mf.L1Reconstruction(reduction="none"), (visual, semantic, kept)
    yield Sampler(torch.linspace(-2, 2, 14)[:, None]), (visual, visual / 2)
    yield mf.compat.Inter_Mode_Loss(0.5), (visual, kept)
    yield mf.compat.Cross_Mode_Loss(0.5), (visual, semantic, kept)
    yield mf.compat.SupConLoss(0.5), (torch.stack([visual, visual + 1], dim=1), kept)


def ids(cases):
    return [type(module).__name__ for module, _ in cases]


MODULES = list(modules())


def outputs_and_gradients(module, arguments):
    leaves = [
        argument.detach().requires_grad_() if argument.is_floating_point() else argument
        for argument in arguments
    ]
    outputs = module(*leaves)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
    total = sum(output.sum() for output in outputs)
    wanted = [leaf for leaf in leaves if leaf.requires_grad] + list(module.parameters())
    return (*outputs, *torch.autograd.grad(total, wanted))


@pytest.mark.parametrize(("module", "arguments"), MODULES, ids=ids(MODULES))
def test_torchscript_gives_the_same_after_a_round_trip(module, arguments):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    expected = outputs_and_gradients(module, arguments)
    for got, want in zip(outputs_and_gradients(scripted, arguments), expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("module", "arguments"), MODULES, ids=ids(MODULES))
def test_compile_with_fullgraph_gives_the_same(module, arguments):
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = outputs_and_gradients(module, arguments)
    for got, want in zip(outputs_and_gradients(compiled, arguments), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_inductor_compiles_a_training_step_for_changing_batch_sizes():
    encoder = torch.nn.Linear(6, 5)

    @torch.compile(fullgraph=True, dynamic=True)
    def step(features, semantic, labels):
        losses = functional.contrastive_losses(encoder(features), semantic, labels, temperature=0.5)
        return losses.vtov + losses.vtos + losses.stov

    for instances in (12, 20):
        _, semantic, labels = inputs(instances=instances)
        features = torch.randn(instances, 6)
        encoder.zero_grad()
        step(features, semantic, labels).backward()
        got = encoder.weight.grad.clone()
        encoder.zero_grad()
        losses = reference.contrastive_losses(encoder(features), semantic, labels, temperature=0.5)
        sum(losses).backward()
        torch.testing.assert_close(got, encoder.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("module", "arguments"), MODULES, ids=ids(MODULES))
def test_export_keeps_the_operators(module, arguments):
    arguments = tuple(argument.detach() for argument in arguments)
    program = torch.export.export(module, arguments)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("mcfa_fast.") for name in names)
    torch.testing.assert_close(program.module()(*arguments), module(*arguments))


def test_a_backward_pass_under_autocast_is_the_one_outside():
    visual, semantic, labels = inputs(width=100)  # a product that autocast would narrow
    classes = labels.clamp(min=0)

    def total():
        return (
            sum(functional.contrastive_losses(visual, semantic, labels, temperature=0.5))
            + functional.wasserstein_alignment(visual, visual, semantic, semantic, classes)
            + functional.kl_divergence(visual, visual)
            + functional.l1_reconstruction(visual, semantic, classes)
            + functional.reparameterize(visual, visual, visual.detach()).sum()
        )

    expected = torch.autograd.grad(total(), (visual, semantic))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients = torch.autograd.grad(total(), (visual, semantic))
    for got, want in zip(gradients, expected, strict=True):
        assert torch.equal(got, want)


def test_autocast_brings_mixed_latents_together():
    visual, semantic, labels = inputs()
    linear = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = linear(visual)
        assert latents.dtype == torch.bfloat16
        losses = functional.contrastive_losses(latents, semantic, labels, temperature=0.5)
        alignment = functional.wasserstein_alignment(
            latents, latents, semantic, semantic, labels.clamp(min=0)
        )
        divergence = functional.kl_divergence(latents, visual)
        distance = functional.l1_reconstruction(latents, semantic, labels.clamp(min=0))
        samples = functional.reparameterize(latents, latents / 2, visual.detach())
        low_samples = functional.reparameterize(latents, latents, latents.detach())
    expected = functional.contrastive_losses(latents.float(), semantic, labels, temperature=0.5)
    for got, want in zip(losses, expected, strict=True):
        assert got.dtype == torch.float32 and torch.equal(got, want)
    assert divergence == functional.kl_divergence(latents.float(), visual)
    assert distance == functional.l1_reconstruction(latents.float(), semantic, labels.clamp(min=0))
    assert samples.dtype == torch.float32 and low_samples.dtype == torch.bfloat16
    (sum(losses) + alignment + divergence + distance + samples.sum()).backward()
    assert linear.weight.grad.dtype == torch.float32 and linear.weight.grad.abs().sum() > 0


def test_second_derivatives_raise_one_clear_error():
    visual, semantic, labels = inputs(torch.float64)
    loss = functional.vtos_loss(visual, semantic, labels, temperature=0.5)
    (gradient,) = torch.autograd.grad(loss, visual, create_graph=True)
    with pytest.raises(NotImplementedError, match="contrastive losses: .* second derivative"):
        gradient.sum().backward()
    distance = functional.wasserstein_alignment(
        visual, visual, visual.detach() + 1, visual.detach()
    )
    (gradient,) = torch.autograd.grad(distance, visual, create_graph=True)
    with pytest.raises(NotImplementedError, match="wasserstein_alignment: .* second derivative"):
        gradient.sum().backward()
    divergence = functional.kl_divergence(visual, visual)
    (gradient,) = torch.autograd.grad(divergence, visual, create_graph=True)
    with pytest.raises(NotImplementedError, match="kl_divergence: .* second derivative"):
        gradient.sum().backward()
    distance = functional.l1_reconstruction(visual, semantic, labels.clamp(min=0))
    for leaf in (visual, semantic):
        (gradient,) = torch.autograd.grad(distance, leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match="l1_reconstruction: .* second derivative"):
            gradient.sum().backward()
    samples = functional.reparameterize(visual, visual, visual.detach())
    (gradient,) = torch.autograd.grad(samples.sum(), visual, create_graph=True)
    with pytest.raises(NotImplementedError, match="reparameterize: .* second derivative"):
        gradient.sum().backward()


def test_meta_tensors_get_shapes_dtypes_and_errors():
    rows, table = torch.empty(6, 4, device="meta"), torch.empty(3, 4, device="meta")
    labels = torch.empty(6, dtype=torch.int64, device="meta")
    low = rows.bfloat16()
    assert functional.l1_reconstruction(rows, table, labels).shape == ()
    distance = functional.l1_reconstruction(low, table.bfloat16(), labels, reduction="none")
    assert distance.shape == (6,) and distance.dtype == torch.float32
    samples = functional.reparameterize(low, low, low[:, :1])
    assert samples.shape == (6, 4) and samples.dtype == torch.bfloat16 and samples.is_meta
    with pytest.raises(ValueError, match="`table` to have the shape of `instances`"):
        functional.l1_reconstruction(rows, table)
    with pytest.raises(ValueError, match="`noise` to have the shape of `mean`"):
        functional.reparameterize(rows, rows, table)


def test_a_learnable_temperature_trains_and_is_saved_with_the_module():
    visual, semantic, labels = (tensor.detach() for tensor in inputs())
    losses = mf.ContrastiveLosses(torch.nn.Parameter(torch.tensor(2.0)))
    optimizer = torch.optim.SGD(losses.parameters(), lr=1e-3)
    before = sum(losses(visual, semantic, labels))
    before.backward()
    optimizer.step()
    assert losses.temperature != 2 and sum(losses(visual, semantic, labels)) < before
    assert set(losses.state_dict()) == {"temperature"}


def test_options_are_shown():
    assert repr(mf.VtoVLoss(0.5, positives="in")) == (
        "VtoVLoss(positives='in', temperature=0.5, "
        "reduction='sum', normalize=True, ignore_index=-100)"
    )
