"""The contrastive losses against the float64 oracle, explicit pairs, and their pinned semantics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import functional, reference

LOSSES = ("vtov", "vtos", "stov")


def batch(instances, classes, width, dtype=torch.float64, seed=0, ignored=0.0):
    """Random latents and labels: (visual, semantic, labels)."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(instances, width, dtype=torch.float64, generator=generator)
    semantic = torch.randn(classes, width, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, max(classes, 1), (instances,), generator=generator)
    labels[torch.rand(instances, generator=generator) < ignored] = -100
    return visual.to(dtype), semantic.to(dtype), labels


def values_and_gradients(module, visual, semantic, labels, temperature, **options):
    """The three losses of `module` and the gradients of a weighted sum of all their entries."""
    visual = visual.detach().requires_grad_()
    semantic = semantic.detach().requires_grad_()
    temperature = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    losses = module.contrastive_losses(visual, semantic, labels, temperature=temperature, **options)
    total = 0.0
    for weight, loss in zip((1.0, 0.7, -0.3), losses, strict=True):
        weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
        total = total + weight * (loss * weights.reshape(loss.shape)).sum()
    gradients = torch.autograd.grad(total, (visual, semantic, temperature))
    return dict(
        zip((*LOSSES, "visual", "semantic", "temperature"), (*losses, *gradients), strict=True)
    )


def term_sizes(visual, semantic, temperature, normalize):
    """How large a single term of each result can be: what rounding errors are relative to."""
    if len(visual) == 0 or len(semantic) == 0:
        return dict.fromkeys((*LOSSES, "visual", "semantic", "temperature"), 1.0)
    shortest_v, longest_v = (bound.item() for bound in visual.norm(dim=1).aminmax())
    shortest_s, longest_s = (bound.item() for bound in semantic.norm(dim=1).aminmax())
    similarity = (1.0 if normalize else longest_v * max(longest_v, longest_s)) / temperature
    return {
        **dict.fromkeys(LOSSES, 1.0 + similarity),
        "visual": (1 / shortest_v if normalize else max(longest_v, longest_s)) / temperature,
        "semantic": (1 / shortest_s if normalize else longest_v) / temperature,
        "temperature": similarity / temperature,
    }


def assert_like_oracle(ours, oracle, rtol, sizes):
    for name, expected in oracle.items():
        size = max(expected.abs().max().item() if expected.numel() else 0.0, sizes[name])
        torch.testing.assert_close(
            ours[name].double(),
            expected,
            rtol=0,
            atol=rtol * size,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 2.0])
def test_values_and_gradients_match_the_oracle(temperature, reduction, positives, normalize):
    for shape in [(1, 1, 1), (7, 3, 5), (25, 5, 64), (131, 140, 17), (900, 300, 9)]:
        data = batch(*shape, ignored=0.1)
        options = {"reduction": reduction, "positives": positives, "normalize": normalize}
        oracle = values_and_gradients(reference, *data, temperature, **options)
        ours = values_and_gradients(functional, *data, temperature, **options)
        assert_like_oracle(ours, oracle, 1e-10, term_sizes(*data[:2], temperature, normalize))


@settings(max_examples=400, deadline=None)
@given(
    instances=st.integers(0, 300),
    classes=st.integers(1, 90),
    width=st.integers(1, 40),
    log_temperature=st.floats(-3, 3),
    skew=st.floats(0.2, 5.0),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    reduction=st.sampled_from(["sum", "mean", "none"]),
    positives=st.sampled_from(["out", "in"]),
    normalize=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 2**31),
)
def test_any_batch_matches_the_oracle(
    instances,
    classes,
    width,
    log_temperature,
    skew,
    ignored,
    reduction,
    positives,
    normalize,
    dtype,
    seed,
):
    visual, semantic, _ = batch(instances, classes, width, dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    labels = (
        (torch.rand(instances, generator=generator) ** skew * classes).long().clamp(max=classes - 1)
    )
    labels[torch.rand(instances, generator=generator) < ignored] = -100
    temperature = 10.0**log_temperature
    options = {"reduction": reduction, "positives": positives, "normalize": normalize}
    oracle = values_and_gradients(
        reference, visual.double(), semantic.double(), labels, temperature, **options
    )
    ours = values_and_gradients(functional, visual, semantic, labels, temperature, **options)
    sizes = term_sizes(visual.double(), semantic.double(), temperature, normalize)
    # Exponentials are as exact as their exponents, which are known to a few units in the last
    # place; sums over instances add up their errors.
    rtol = (20 + instances) * torch.finfo(dtype).eps * sizes["vtov"]
    assert_like_oracle(ours, oracle, rtol, sizes)


def explicit_pairs(visual, semantic, labels, temperature, positives):
    """Eqs. 4 to 6 written as loops over pairs."""
    visual = torch.nn.functional.normalize(visual, dim=1).tolist()
    semantic = torch.nn.functional.normalize(semantic, dim=1).tolist()
    labels = labels.tolist()

    def similarity(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / temperature

    def contrast(anchor, positive, others):
        denominator = sum(math.exp(similarity(anchor, other)) for other in others)
        if positives == "in":
            mean = sum(math.exp(similarity(anchor, p)) for p in positive) / len(positive)
            return -math.log(mean / denominator)
        return -sum(similarity(anchor, p) - math.log(denominator) for p in positive) / len(positive)

    vtov = vtos = stov = 0.0
    for i, v in enumerate(visual):
        positive = [visual[p] for p in range(len(visual)) if p != i and labels[p] == labels[i]]
        if positive:
            vtov += contrast(v, positive, [visual[a] for a in range(len(visual)) if a != i])
        vtos += contrast(v, [semantic[labels[i]]], semantic)
    for c, s in enumerate(semantic):
        positive = [visual[p] for p in range(len(visual)) if labels[p] == c]
        if positive:
            stov += contrast(s, positive, visual)
    return vtov, vtos, stov


@pytest.mark.parametrize("positives", ["out", "in"])
def test_definitions_are_the_papers_pair_sums(positives):
    visual, semantic, labels = batch(9, 4, 3)
    labels[0] = labels[1]
    expected = explicit_pairs(visual, semantic, labels, 0.7, positives)
    for module in (functional, reference):
        losses = module.contrastive_losses(
            visual, semantic, labels, temperature=0.7, positives=positives
        )
        assert [loss.item() for loss in losses] == pytest.approx(expected, rel=1e-12)


def test_single_losses_equal_the_fused_ones():
    visual, semantic, labels = batch(60, 7, 12, dtype=torch.float32, ignored=0.2)
    for positives in ("out", "in"):
        fused = functional.contrastive_losses(
            visual, semantic, labels, temperature=0.3, positives=positives
        )
        vtov = functional.vtov_loss(visual, labels, temperature=0.3, positives=positives)
        vtos = functional.vtos_loss(visual, semantic, labels, temperature=0.3)
        stov = functional.stov_loss(visual, semantic, labels, temperature=0.3, positives=positives)
        assert [loss.item() for loss in fused] == [vtov.item(), vtos.item(), stov.item()]


def test_gradients_of_one_loss_of_the_fused_three():
    visual, semantic, labels = batch(40, 5, 8)
    for index, name in enumerate(LOSSES):
        grads = {}
        for module in (functional, reference):
            v, s = visual.clone().requires_grad_(), semantic.clone().requires_grad_()
            loss = module.contrastive_losses(v, s, labels, temperature=0.5)[index]
            grads[module] = torch.autograd.grad(
                loss, (v, s), allow_unused=True, materialize_grads=True
            )
        torch.testing.assert_close(
            grads[functional], grads[reference], msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positives", ["out", "in"])
def test_low_precision_is_no_worse_than_the_plain_formula_in_it(dtype, positives):
    visual, semantic, labels = batch(200, 10, 32, dtype=dtype)
    options = {"reduction": "mean", "positives": positives}
    oracle = values_and_gradients(
        reference, visual.double(), semantic.double(), labels, 0.2, **options
    )
    plain = values_and_gradients(reference, visual, semantic, labels, 0.2, **options)
    ours = values_and_gradients(functional, visual, semantic, labels, 0.2, **options)
    for name, expected in oracle.items():
        error = (ours[name].double() - expected).abs().max()
        allowed = (plain[name].double() - expected).abs().max()
        assert error <= allowed + 1e-5 * expected.abs().max(), name
    assert all(ours[name].dtype == torch.float32 for name in LOSSES)
    assert ours["visual"].dtype == ours["semantic"].dtype == dtype


def test_an_anchor_without_positive_contributes_nothing_and_is_left_out_of_the_mean():
    visual, _, _ = batch(5, 1, 4)
    labels = torch.tensor([0, 0, 1, 2, 2])
    losses = functional.vtov_loss(visual, labels, temperature=0.5, reduction="none")
    assert losses[2] == 0 and (losses[[0, 1, 3, 4]] > 0).all()
    mean = functional.vtov_loss(visual, labels, temperature=0.5, reduction="mean")
    torch.testing.assert_close(mean, losses.sum() / 4)
    without_negative = functional.vtov_loss(
        visual[[0, 1, 3, 4]], labels[[0, 1, 3, 4]], temperature=0.5
    )
    assert losses.sum() > without_negative  # it is still a negative of the others


def test_a_class_without_instances_is_no_anchor_of_stov_but_a_negative_of_vtos():
    visual, semantic, labels = batch(12, 4, 6)
    labels[labels == 3] = 0
    stov = functional.stov_loss(visual, semantic, labels, temperature=0.5, reduction="none")
    assert stov[3] == 0 and (stov[:3] > 0).all()
    mean = functional.stov_loss(visual, semantic, labels, temperature=0.5, reduction="mean")
    torch.testing.assert_close(mean, stov.sum() / 3)
    fewer = functional.vtos_loss(visual, semantic[:3], labels, temperature=0.5)
    assert functional.vtos_loss(visual, semantic, labels, temperature=0.5) > fewer


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("positives", ["out", "in"])
def test_a_batch_without_valid_anchor_gives_exactly_zero(positives, reduction):
    visual = torch.randn(6, 4, requires_grad=True)
    semantic = torch.randn(3, 4, requires_grad=True)
    options = {"temperature": 1e-3, "positives": positives, "reduction": reduction}
    alone = functional.vtov_loss(visual, torch.arange(6), **options)
    ignored = functional.contrastive_losses(visual, semantic, torch.full((6,), -100), **options)
    for loss in (alone, *ignored):
        assert (loss == 0).all()
        grads = torch.autograd.grad(
            loss.sum(), (visual, semantic), allow_unused=True, retain_graph=True
        )
        assert all(grad is None or (grad == 0).all() for grad in grads)


def test_ignored_instances_are_as_if_absent():
    visual, semantic, labels = batch(50, 6, 8)
    labels[::3] = -7
    kept = labels != -7
    with_ignored = values_and_gradients(functional, visual, semantic, labels, 0.4, ignore_index=-7)
    without = values_and_gradients(functional, visual[kept], semantic, labels[kept], 0.4)
    for name in (*LOSSES, "semantic", "temperature"):
        torch.testing.assert_close(with_ignored[name], without[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        with_ignored["visual"][kept], without["visual"], rtol=1e-12, atol=1e-12
    )
    assert (with_ignored["visual"][~kept] == 0).all()


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("positives", ["out", "in"])
def test_duplicated_and_opposite_vectors_stay_finite_and_right(positives, temperature):
    point = torch.randn(1, 5, dtype=torch.float64)
    visual = torch.cat([point, point, -point, -point, point]).float()
    semantic = torch.cat([point, -point]).float()
    labels = torch.tensor([0, 0, 0, 1, 1])
    oracle = values_and_gradients(
        reference, visual.double(), semantic.double(), labels, temperature, positives=positives
    )
    ours = values_and_gradients(
        functional, visual, semantic, labels, temperature, positives=positives
    )
    for name in oracle:
        assert ours[name].isfinite().all(), name
    for name in LOSSES:
        torch.testing.assert_close(ours[name].double(), oracle[name], rtol=1e-5, atol=1e-3)


def test_zero_vectors_follow_torch_normalize():
    visual, semantic, labels = batch(10, 3, 4)
    visual[2] = 0
    losses = functional.contrastive_losses(visual, semantic, labels, temperature=0.5)
    expected = reference.contrastive_losses(visual, semantic, labels, temperature=0.5)
    torch.testing.assert_close(tuple(losses), tuple(expected))


@pytest.mark.parametrize("temperature", [1e-3, 0.5])
@pytest.mark.parametrize("positives", ["out", "in"])
def test_nan_in_nan_out(positives, temperature):
    visual, semantic, labels = batch(90, 3, 4, dtype=torch.float32)
    visual[40] = torch.nan
    losses = functional.contrastive_losses(
        visual, semantic, labels, temperature=temperature, positives=positives
    )
    assert all(loss.isnan() for loss in losses)


@pytest.mark.parametrize("shape", [(0, 3, 4), (0, 0, 4), (4, 1, 1), (1, 2, 3)])
def test_degenerate_sizes(shape):
    visual, semantic, labels = batch(*shape)
    oracle = values_and_gradients(reference, visual, semantic, labels, 0.5)
    ours = values_and_gradients(functional, visual, semantic, labels, 0.5)
    assert_like_oracle(ours, oracle, 1e-12, term_sizes(visual, semantic, 0.5, True))


def test_no_classes_and_only_ignored_instances():
    losses = functional.contrastive_losses(
        torch.randn(4, 3), torch.randn(0, 3), torch.full((4,), -100), temperature=1.0
    )
    assert [loss.item() for loss in losses] == [0, 0, 0]


def test_noncontiguous_inputs_and_other_integer_labels():
    visual, semantic, labels = batch(30, 5, 8)
    expected = functional.contrastive_losses(visual, semantic, labels, temperature=0.5)
    strided = torch.stack([visual, visual], dim=2)[..., 1]
    transposed = semantic.T.contiguous().T
    spread = torch.stack([labels, labels], dim=1)[:, 0].to(torch.int16)
    losses = functional.contrastive_losses(strided, transposed, spread, temperature=0.5)
    assert tuple(losses) == tuple(expected)


def test_vtov_takes_any_integers_as_labels():
    visual, _, labels = batch(30, 4, 8)
    near, far = (
        functional.vtov_loss(visual, classes, temperature=0.5)
        for classes in (labels, labels * 10**15 - 3)
    )
    torch.testing.assert_close(far, near, rtol=1e-14, atol=0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_two_runs_are_bitwise_the_same(temperature, threads):
    data = batch(1100, 80, 24, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = [
            values_and_gradients(functional, *data, temperature, positives="in") for _ in range(2)
        ]
    finally:
        torch.set_num_threads(before)
    for name in runs[0]:
        assert torch.equal(runs[0][name], runs[1][name]), name


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"visual": torch.randn(4)}, ValueError, r"`visual` to have shape \[N, D\]"),
        ({"visual": torch.ones(4, 3, dtype=torch.int64)}, TypeError, "`visual` to be float32"),
        (
            {"visual": torch.randn(4, 3).double()},
            TypeError,
            "`semantic` to have the dtype of `visual`",
        ),
        ({"semantic": torch.randn(2, 5)}, ValueError, "`semantic` to have D = 3 columns"),
        ({"semantic": torch.randn(2, 3, 1)}, ValueError, r"`semantic` to have shape \[C, D\]"),
        ({"labels": torch.arange(3)}, ValueError, r"`labels` to have shape \[N\] = \[4\]"),
        ({"labels": torch.zeros(4)}, TypeError, "`labels` to have an integer dtype"),
        (
            {"labels": torch.tensor([0, 1, 2, 0])},
            ValueError,
            r"class in \[0, 2\), but got 2 at index 2",
        ),
        (
            {"labels": torch.tensor([0, 1, -1, 0])},
            ValueError,
            r"class in \[0, 2\), but got -1 at index 2",
        ),
        ({"temperature": 0.0}, ValueError, "`temperature` to be positive and finite, but got 0"),
        ({"temperature": float("nan")}, ValueError, "`temperature` to be positive"),
        ({"temperature": torch.ones(2)}, ValueError, "`temperature` to be a number"),
        ({"positives": "both"}, ValueError, "`positives` to be 'out' or 'in', but got 'both'"),
        (
            {"reduction": "avg"},
            ValueError,
            "`reduction` to be 'sum', 'mean' or 'none', but got 'avg'",
        ),
        ({"visual": torch.randn(4, 3, device="meta")}, ValueError, "on the device of `visual`"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {
        "visual": torch.randn(4, 3),
        "semantic": torch.randn(2, 3),
        "labels": torch.tensor([0, 1, 1, 0]),
        "temperature": 0.5,
    } | change
    with pytest.raises(error, match=message):
        functional.contrastive_losses(**arguments)
