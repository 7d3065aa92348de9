"""The ways to take a training step agree with each other and with autograd."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mcfa_fast import _C
from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.models import MCFA, LossWeights, MCFALoss
from mcfa_fast.training.optimizer import FusedAdam
from mcfa_fast.systems.mcfa.step import CapturedStep, EagerStep, NativeStep, StepInput, make_step

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
    weights = LossWeights(*weights)
    losses, gradients = autograd(model, batch, weights)
    found = run_native(native_step(model), batch, weights)
    torch.testing.assert_close(found, losses.double(), rtol=1e-10, atol=1e-10)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


def test_autocast_does_not_reach_the_native_step():
    batch = make_batch(60, 6, 140, 70)
    model = make_model(MCFAConfig(**SMALL), batch)
    weights = LossWeights.of(model.config)
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
    weights = LossWeights.of(config)
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
        run_native(step, batch._replace(**change), LossWeights.of(config))


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


@pytest.mark.parametrize("options", [{}, REFERENCE | {"positives": "in"}])
def test_native_and_eager_steps_train_alike(options):
    config = MCFAConfig(**SMALL, **options, learning_rate=1e-2)
    weights = LossWeights.of(config)
    models = [make_model(config, make_batch()) for _ in range(2)]
    steps = [
        kind(model, FusedAdam(model.parameters(), config.learning_rate), seeded(1))
        for kind, model in zip((NativeStep, EagerStep), models, strict=True)
    ]
    for number in range(10):
        batch = make_batch(instances=10 + number, seed=number)
        native, eager = (step(batch, weights) for step in steps)
        torch.testing.assert_close(native.float(), eager, rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_fused_adam_is_pytorchs():
    generator = seeded()
    ours = [torch.randn(shape, generator=generator) for shape in ((5, 3), (4,))]
    ours = [parameter.requires_grad_() for parameter in ours]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    optimizer = FusedAdam(ours, learning_rate=0.01)
    expected = torch.optim.Adam(theirs, lr=0.01, amsgrad=True, fused=True)
    for number in range(6):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        optimizer.step()
        expected.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
        if number == 2:  # either reads the other's state
            states = copy.deepcopy((optimizer.state_dict(), expected.state_dict()))
            expected.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])


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
    step = EagerStep(model, FusedAdam(model.parameters(), 1e-3), seeded())
    with Waits() as waits:
        torch.ones(1).item()
        assert waits.count == 1
        step(batch, LossWeights.of(config))
    assert waits.count == 1


def test_mixed_precision_gives_about_the_same_losses():
    batch = make_batch(instances=40, features=64, attributes=32)
    losses = {}
    for precision in ("float32", "bf16"):
        config = MCFAConfig(**SMALL, precision=precision)
        model = make_model(config, batch)
        step = EagerStep(model, FusedAdam(model.parameters(), 1e-3), seeded())
        losses[precision] = [step(batch, LossWeights.of(config)) for _ in range(3)]
    for exact, rounded in zip(*losses.values(), strict=True):
        assert not torch.equal(exact, rounded), "bf16 was not used"
        # The total; terms that are nearly 0 here, as the KL divergence, lose more.
        torch.testing.assert_close(rounded[0], exact[0], rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    "options, kind",
    [({}, NativeStep), ({"precision": "bf16"}, EagerStep), ({"chunk_size": 5}, EagerStep)],
)
def test_make_step_on_the_cpu(options, kind):
    config = MCFAConfig(**SMALL, **options)
    model = make_model(config, make_batch())
    assert type(make_step(config, model, FusedAdam(model.parameters(), 1e-3), seeded())) is kind


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_steps_are_the_eager_ones():
    config = MCFAConfig(**SMALL, learning_rate=1e-2, alignment_warmup=(1, 2))
    results = []
    for kind in (CapturedStep, EagerStep):
        model = make_model(config, make_batch()).cuda()
        optimizer = FusedAdam(model.parameters(), config.learning_rate)
        step = kind(model, optimizer, torch.Generator("cuda").manual_seed(1))
        assert kind is EagerStep or isinstance(
            make_step(config, model, optimizer, torch.Generator("cuda")), CapturedStep
        )
        losses = []
        for epoch in (1, 2):
            weights = LossWeights.of(config, epoch)
            for number in range(8):
                # The last batch of an epoch is smaller.
                batch = make_batch(instances=5 if number == 7 else 12, seed=number)
                losses.append(step(StepInput(*(t.cuda() for t in batch)), weights))
        results.append((torch.stack(losses), list(model.parameters())))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
