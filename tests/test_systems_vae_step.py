"""The ways to take a training step agree with each other and with autograd."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from system_data import A, F, make_training_data
from torch.utils._python_dispatch import TorchDispatchMode

from mcfa_fast import _C
from mcfa_fast.systems.batches import StepInput
from mcfa_fast.systems.cada_vae import CADAVAE, CADAVAEConfig
from mcfa_fast.systems.mcfa import MCFA, MCFAConfig, MCFALoss, MCFASystem
from mcfa_fast.systems.mcfa.objective import weights_of
from mcfa_fast.systems.vae.step import (
    CapturedStep,
    Contrasts,
    EagerStep,
    NativeStep,
    TermWeights,
)
from mcfa_fast.training import Update
from mcfa_fast.training.optimizer import FusedAdam

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"latent_features": 5, "visual_hidden": 9, "semantic_hidden": 7}
REFERENCE = {"noise": "row", "sampling_scale": "variance", "class_weighting": "rows"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_batch(instances=12, classes=4, features=11, attributes=6, seed=0, dtype=torch.float32):
    generator = seeded(seed)
    return StepInput(
        torch.rand(instances, features, generator=generator, dtype=dtype),
        torch.rand(classes, attributes, generator=generator, dtype=dtype),
        torch.randint(0, classes, (instances,), generator=generator),
    )


def make_model(config, batch):
    model = MCFA(batch.features.shape[1], batch.semantics.shape[1], config)
    return model.to(batch.features.dtype)


def native_step(model):
    """The bare pass of the extension, which has no optimiser and takes any floating dtype."""
    return _C.TrainingStep(
        list(model.parameters()),
        temperature=model.config.temperature,
        positives=model.config.positives,
        scale_power=model.scale_power,
        noise_per_row=model.noise_per_row,
        count_instances=model.config.class_weighting == "instances",
    )


def run_native(step, batch, weights, seed=3):
    return step.run(*batch, _C.LossWeights(**weights._asdict()), seeded(seed))


def autograd(model, batch, weights, seed=3):
    losses = MCFALoss(model.config)(model(*batch, seeded(seed)), weights)
    return torch.stack(losses), torch.autograd.grad(losses.total, list(model.parameters()))


@settings(max_examples=60, deadline=None)
@given(
    instances=st.integers(1, 70),
    classes=st.integers(1, 9),
    features=st.integers(1, 140),
    attributes=st.integers(1, 70),
    latents=st.integers(1, 9),
    options=st.sampled_from([{}, REFERENCE, {"noise": "row"}, {"positives": "in"}]),
    weights=st.lists(st.sampled_from([0.0, 0.1, 1.0, 100.0]), min_size=7, max_size=7),
    seed=st.integers(0, 1000),
)
def test_native_gradients_are_those_of_autograd(
    instances, classes, features, attributes, latents, options, weights, seed
):
    batch = make_batch(instances, classes, features, attributes, seed, torch.float64)
    config = MCFAConfig(**SMALL | {"latent_features": latents}, **options)
    model = make_model(config, batch)
    weights = TermWeights(*weights)
    losses, gradients = autograd(model, batch, weights)
    found = run_native(native_step(model), batch, weights)
    torch.testing.assert_close(found, losses.double(), rtol=1e-10, atol=1e-10)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


def test_autocast_does_not_reach_the_native_step():
    batch = make_batch(60, 6, 140, 70)
    model = make_model(MCFAConfig(**SMALL), batch)
    weights = weights_of(model.config)
    step = native_step(model)
    expected = run_native(step, batch, weights)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run_native(step, batch, weights)
    assert torch.equal(found, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_native_buffers_follow_the_batch():
    config = MCFAConfig(**SMALL)
    weights = weights_of(config)
    batches = [make_batch(instances=n, classes=c, seed=n) for n, c in ((30, 3), (5, 6), (64, 2))]
    model = make_model(config, batches[0])
    step = native_step(model)
    for batch in (*batches, batches[0]):
        found = run_native(step, batch, weights)
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        fresh = copy.deepcopy(model)
        assert torch.equal(run_native(native_step(fresh), batch, weights), found)
        for parameter, gradient in zip(fresh.parameters(), gradients, strict=True):
            assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"labels": torch.full((12,), 4)}, ValueError, r"labels.*4.*0 to 3|label.*4"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, ValueError, "labels"),
        ({"features": torch.rand(12, 11, dtype=torch.float64)}, TypeError, "features"),
        ({"features": torch.rand(11, 12).t()}, ValueError, "features.*contiguous"),
        ({"semantics": torch.rand(4)}, ValueError, "semantics"),
        ({"features": torch.rand(12, 10)}, RuntimeError, "10"),
    ],
)
def test_native_step_refuses_bad_batches(change, error, message):
    batch = make_batch()
    config = MCFAConfig(**SMALL)
    step = native_step(make_model(config, batch))
    with pytest.raises(error, match=message):
        run_native(step, batch._replace(**change), weights_of(config))


def test_native_step_refuses_bad_parameters():
    batch = make_batch()
    model = make_model(MCFAConfig(**SMALL), batch)
    options = {
        "temperature": 1.0,
        "positives": "out",
        "scale_power": 0.5,
        "noise_per_row": False,
        "count_instances": True,
    }
    with pytest.raises(ValueError, match="expected 20 `parameters`, but got 3"):
        _C.TrainingStep(list(model.parameters())[:3], **options)


def native(model, optimizer, generator):
    contrasts = Contrasts(model.config.temperature, model.config.positives)
    return NativeStep(model, contrasts, optimizer, generator, terms=8)


def eager(model, optimizer, generator):
    return EagerStep(model, MCFALoss(model.config), optimizer, generator)


def captured(model, optimizer, generator):
    return CapturedStep(eager(model, optimizer, generator), optimizer, generator)


@pytest.mark.parametrize("options", [{}, REFERENCE | {"positives": "in"}])
def test_native_and_eager_steps_train_alike(options):
    config = MCFAConfig(**SMALL, **options)
    weights = weights_of(config)
    models = [make_model(config, make_batch()) for _ in range(2)]
    steps = [
        make(model, FusedAdam(model.parameters(), 1e-2), seeded(1))
        for make, model in zip((native, eager), models, strict=True)
    ]
    for number in range(10):
        batch = make_batch(instances=10 + number, seed=number)
        ours, theirs = (step(batch, weights, Update()) for step in steps)
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


class Waits(TorchDispatchMode):
    """Counts the operations for which the CPU would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "_local_scalar_dense" in str(func) or "nonzero" in str(func)
        return func(*args, **(kwargs or {}))


def test_eager_steps_do_not_wait_for_the_device():
    batch = make_batch()
    config = MCFAConfig(**SMALL)
    model = make_model(config, batch)
    step = eager(model, FusedAdam(model.parameters(), 1e-3), seeded())
    with Waits() as waits:
        torch.ones(1).item()
        assert waits.count == 1
        step(batch, weights_of(config), Update())
    assert waits.count == 1


def test_mixed_precision_gives_about_the_same_losses():
    batch = make_batch(instances=40, features=64, attributes=32)
    losses = {}
    for precision in ("float32", "bf16"):
        config = MCFAConfig().replace(**SMALL, precision=precision)
        model = make_model(config, batch)
        step = eager(model, FusedAdam(model.parameters(), 1e-3), seeded())
        losses[precision] = [step(batch, weights_of(config), Update()) for _ in range(3)]
    for exact, rounded in zip(*losses.values(), strict=True):
        assert not torch.equal(exact, rounded), "bf16 was not used"
        # The total; terms that are nearly 0 here, as the KL divergence, lose more.
        torch.testing.assert_close(rounded[0], exact[0], rtol=1e-2, atol=0)


class Skipping(Update):
    """Leaves the weights as they are."""

    def apply(self, optimizer):
        pass


@pytest.mark.parametrize("make", [native, eager])
def test_weights_change_in_the_update_only(make):
    config = MCFAConfig(**SMALL)
    model = make_model(config, make_batch())
    before = copy.deepcopy(model.state_dict())
    step = make(model, FusedAdam(model.parameters(), 1e-2), seeded(1))
    step(make_batch(), weights_of(config), Skipping())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert any(parameter.grad.any() for parameter in model.parameters())
    step(make_batch(), weights_of(config), Update())
    assert not torch.equal(model.visual.encoder.mean.weight, before["visual.encoder.mean.weight"])


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (MCFAConfig(), NativeStep),
        (CADAVAEConfig(), NativeStep),
        (MCFAConfig().replace(precision="bf16"), EagerStep),
        (MCFAConfig().replace(chunk_size=5), EagerStep),
        (MCFAConfig(contrast="means"), EagerStep),
        (MCFAConfig(reconstruction_weight=0, cross_reconstruction_weight=0), EagerStep),
    ],
)
def test_the_fastest_step_on_the_cpu_that_does_what_is_asked(config, kind):
    system = {MCFAConfig: MCFASystem, CADAVAEConfig: CADAVAE}[type(config)]
    data = make_training_data()
    trainable = system(config.replace(**SMALL, classes_per_batch=3), F, A).trainable(data)
    assert type(trainable._step) is kind


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_steps_are_the_eager_ones():
    config = MCFAConfig(**SMALL)
    results = []
    for make in (captured, eager):
        model = make_model(config, make_batch()).cuda()
        optimizer = FusedAdam(model.parameters(), 1e-2)
        step = make(model, optimizer, torch.Generator("cuda").manual_seed(1))
        losses = []
        for epoch in (1, 2):
            weights = weights_of(config)._replace(alignment=float(epoch == 2))
            for number in range(8):
                # The last batch of an epoch is smaller.
                batch = make_batch(instances=5 if number == 7 else 12, seed=number)
                batch = StepInput(*(t.cuda() for t in batch))
                losses.append(step(batch, weights, Update()))
        results.append((torch.stack(losses), list(model.parameters())))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_records_its_steps():
    config = MCFAConfig().replace(**SMALL, classes_per_batch=3)
    system = MCFASystem(config, F, A, device="cuda")
    assert type(system.trainable(make_training_data())._step) is CapturedStep
