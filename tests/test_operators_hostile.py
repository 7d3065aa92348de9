"""Nothing crashes: memory that changes between two passes, and operators called with anything."""

import numpy as np
import pytest
import torch
from op_samples import FUNCTIONS, cases, values_and_gradients
from test_operators import calls_of

from mcfa_fast import functional, ops

LABELLED = [
    (function, sample)
    for function, sample in cases("small")
    if isinstance(sample.tensors[-1], torch.Tensor) and sample.tensors[-1].dtype == torch.int64
]


def test_some_functions_take_labels():
    assert {function.name for function, _ in LABELLED} == {
        function.name
        for function in FUNCTIONS
        if function.name
        not in ("kl_divergence", "reparameterize", "info_nce_loss", "clip_loss", "nt_xent_loss")
    }


@pytest.mark.parametrize(
    "written", [range(64), [10**9] * 64, [-1] * 64], ids=("range", "far", "-1")
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize(
    ("function", "sample"), LABELLED, ids=[function.name for function, _ in LABELLED]
)
def test_backward_gets_the_labels_that_forward_got(function, sample, dtype, written):
    call = getattr(functional, function.name)
    expected = values_and_gradients(call, sample)
    buffer = sample.tensors[-1].numpy().astype(dtype)
    labels = torch.from_numpy(buffer)

    def overwritten_before_backward(*tensors, **options):
        outputs = call(*tensors[:-1], labels, **options)
        buffer[:] = np.array(written[: len(buffer)])
        return outputs

    results = values_and_gradients(overwritten_before_backward, sample)
    assert all(torch.equal(got, want) for got, want in zip(results, expected, strict=True))


def test_a_compiled_backward_pass_does_not_trust_the_labels_either():
    visual = torch.randn(64, 8, requires_grad=True)
    buffer = np.arange(64) % 3
    labels = torch.from_numpy(buffer)
    semantic = torch.randn(3, 8)
    compiled = torch.compile(
        lambda v: sum(functional.contrastive_losses(v, semantic, labels, temperature=0.5)),
        fullgraph=True,
        backend="aot_eager",
    )
    (expected,) = torch.autograd.grad(compiled(visual), visual)
    loss = compiled(visual)
    buffer[:] = 10**9
    try:
        (gradient,) = torch.autograd.grad(loss, visual)
    except ValueError as error:  # a compiler may look at the labels again
        assert "`labels`" in str(error)
    else:
        torch.testing.assert_close(gradient, expected)


def changed(name, value):
    """Wrong values for an argument, most of them wrong in a way of their own."""
    if isinstance(value, torch.Tensor):
        yield value[..., None]
        yield value.to(torch.complex64)
        yield value.to("meta")
        yield torch.empty(0, dtype=value.dtype)
        yield torch.empty(0, 7, 3, dtype=value.dtype)
        if not value.is_floating_point():
            yield value.double()
            yield value.to(torch.uint64)
        else:
            yield value.long()
        if value.dim() > 0 and len(value) > 0:
            yield value[1:]
            yield torch.cat([value, value])
            yield value[0]
        if value.dim() == 2:
            yield value[:, 1:]
            yield value.T
    elif isinstance(value, str):
        yield "other"
    elif isinstance(value, float):
        yield float("nan")
        yield -1.0


def calls():
    seen = set()
    for function, sample in cases("small"):
        for dtype in (torch.float32, torch.bfloat16):
            for operator, arguments in calls_of(function, sample.to(dtype)):
                key = (operator, dtype, str([getattr(a, "shape", a) for a in arguments]))
                if key not in seen:
                    seen.add(key)
                    yield operator, arguments


def test_every_operator_names_the_argument_that_does_not_fit():
    tried = raised = 0
    for operator, arguments in calls():
        names = [argument.name for argument in operator._schema.arguments]
        for place, name in enumerate(names):
            for value in changed(name, arguments[place]):
                wrong = (*arguments[:place], value, *arguments[place + 1 :])
                tried += 1
                try:
                    with torch.no_grad():
                        operator(*wrong)
                except (ValueError, TypeError) as error:
                    raised += 1
                    # Labels are right or wrong only for a table of so many classes.
                    named = f"`{name}`" in str(error) or "of `labels` to be a class" in str(error)
                    assert named, (operator, name, value, str(error))
                    assert "expected" in str(error) and "but got" in str(error), str(error)
    assert raised > 0.8 * tried > 1000


@pytest.mark.parametrize("label", [3, -1, 10**9, -(10**9)])
def test_backward_operators_check_the_range_of_labels(label):
    for operator, arguments in calls():
        names = [argument.name for argument in operator._schema.arguments]
        if "labels" not in names or not isinstance(arguments[names.index("labels")], torch.Tensor):
            continue
        labels = arguments[names.index("labels")].clone()
        labels[2] = label
        wrong = tuple(
            labels if name == "labels" else value
            for name, value in zip(names, arguments, strict=True)
        )
        if "semantic" in names and arguments[names.index("semantic")] is None:
            operator(*wrong)  # any integer is a class, for there is no table of them
        else:
            with pytest.raises(ValueError, match=rf"`labels` .* but got {label} at index 2"):
                operator(*wrong)


def test_meta_tensors_are_checked_like_real_ones():
    for operator, arguments in calls():
        names = [argument.name for argument in operator._schema.arguments]
        for place, name in enumerate(names):
            # Sums of a loss that was not asked for are empty, and not looked at.
            if not isinstance(arguments[place], torch.Tensor) or arguments[place].numel() == 0:
                continue
            for value in (arguments[place][..., None], arguments[place].to(torch.complex64)):
                wrong = [*arguments[:place], value, *arguments[place + 1 :]]
                wrong = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in wrong]
                with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
                    operator(*wrong)


def test_a_temperature_that_float32_cannot_compute_with_is_refused():
    visual, labels = torch.randn(8, 4), torch.arange(8) % 2
    for temperature in (1e-300, 1e300, 1e-8):
        with pytest.raises(
            ValueError, match="`temperature` between 1.19.*e-07 and 1e[+]30 .*Float"
        ):
            functional.vtov_loss(visual, labels, temperature=temperature)
    for temperature in (1e-5, 1e20):
        assert functional.vtov_loss(visual, labels, temperature=temperature).isfinite()
    for temperature in (1e-12, 1e100):
        assert functional.vtov_loss(visual.double(), labels, temperature=temperature).isfinite()


def test_uint64_labels_are_refused():
    with pytest.raises(TypeError, match="`labels` to have an integer dtype that int64 can hold"):
        ops.l1(torch.randn(2, 3), torch.randn(2, 3), torch.ones(2, dtype=torch.uint64), "sum")
