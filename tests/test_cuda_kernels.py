"""The CUDA kernels' own source, executed on the CPU by the harness, against the float64 oracle.

tests/cuda_harness compiles csrc/*/cuda*.cu as C++: the same host code and the same kernels, on CPU
tensors, every thread of a block as a fiber. Here they run on small shapes in three thread orders;
and mistakes are planted in them, one at a time, to show that these tests would notice.
"""

import ctypes
import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch

from mcfa_fast import reference

HARNESS = Path(__file__).resolve().parent / "cuda_harness"
ORDERS = {"ascending": 0, "descending": 1, "random": 2}
MISSING_BARRIER, MISSING_WAIT, WRONG_ADDRESS, MISSING_FENCE = 1, 2, 3, 4
LOW_PRECISION = (torch.bfloat16, torch.float16)
CHUNK = (64, 32)  # rows and columns of the library's products


@pytest.fixture(scope="module")
def harness():
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler to build the harness with")
    spec = importlib.util.spec_from_file_location("build_harness", HARNESS / "build_harness.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    path = str(build.build())
    torch.ops.load_library(path)
    library = ctypes.CDLL(path)
    library.harness_calls.restype = ctypes.c_char_p
    return library


@pytest.fixture(autouse=True)
def clean(harness):
    harness.harness_set_order(ORDERS["ascending"], ctypes.c_uint64(0))
    harness.harness_plant(0, b"")
    harness.harness_set_hopper(0)
    set_chunk(harness, *CHUNK)
    yield
    harness.harness_plant(0, b"")
    harness.harness_set_hopper(0)


def set_chunk(harness, rows, columns):
    harness.harness_set_chunk(ctypes.c_int64(rows), ctypes.c_int64(columns))


def batch(instances, classes, width, dtype, seed=0, ignored=0.1):
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(instances, width, dtype=torch.float64, generator=generator)
    semantic = torch.randn(classes, width, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, classes, (instances,), generator=generator)
    labels[torch.rand(instances, generator=generator) < ignored] = -100
    return visual.to(dtype), semantic.to(dtype), labels


def harness_losses(visual, semantic, labels, *, temperature, wanted=(True, True, True), **options):
    options = {
        "positives": "out",
        "reduction": "sum",
        "normalize": True,
        "ignore_index": -100,
    } | options
    return torch.ops.mcfa_fast_harness.contrastive_forward(
        visual, semantic, labels, temperature, *wanted, *options.values()
    )[:3]


def losses_and_gradients(losses, visual, semantic, labels, temperature, **options):
    """The three losses and the gradients of a weighted sum of all their entries."""
    visual = visual.detach().requires_grad_()
    semantic = semantic.detach().requires_grad_()
    temperature = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    values = losses(visual, semantic, labels, temperature=temperature, **options)
    total = 0.0
    for weight, loss in zip((1.0, 0.7, -0.3), values, strict=True):
        weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
        total = total + weight * (loss * weights.reshape(loss.shape)).sum()
    gradients = torch.autograd.grad(total, (visual, semantic, temperature))
    names = ("vtov", "vtos", "stov", "visual", "semantic", "temperature")
    return dict(zip(names, (*values, *gradients), strict=True))


def errors(ours, oracle):
    """Largest error of each result, relative to its largest entry."""
    result = {}
    for name, expected in oracle.items():
        if expected.numel() == 0:
            continue
        size = expected.abs().max().item()
        # Gradients may cancel to nothing, as those of normalised numbers do.
        size = size if size > 1e-9 else 1.0
        result[name] = (ours[name].double() - expected).abs().max().item() / size
    return result


def allowance(dtype, temperature):
    """Rounding errors of the inputs' dtype, which similarities of size 1 / temperature magnify."""
    return {
        torch.float64: 1e-12,
        torch.float32: 2e-6,
        torch.bfloat16: 1.2e-2,
        torch.float16: 2e-3,
    }[dtype] * max(1.0, 0.2 / temperature)


def assert_right(dtype, temperature, visual, semantic, labels, **options):
    oracle = losses_and_gradients(
        reference.contrastive_losses,
        visual.double(),
        semantic.double(),
        labels,
        temperature,
        **options,
    )
    ours = losses_and_gradients(harness_losses, visual, semantic, labels, temperature, **options)
    for name, error in errors(ours, oracle).items():
        assert error <= allowance(dtype, temperature), f"{name}: {error}"
    return ours


DTYPES = (torch.float64, torch.float32, *LOW_PRECISION)


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_and_gradients_match_the_oracle(harness, dtype, positives):
    cases = [
        # instances, classes, width, temperature, reduction, normalize
        (150, 9, 20, 0.5, "sum", True),
        (70, 5, 33, 0.02, "mean", True),  # beyond the known maximum: running maxima
        (131, 80, 5, 2.0, "none", False),
        (3, 2, 1, 0.3, "none", True),
        (1, 1, 4, 0.3, "mean", True),
        (0, 3, 4, 0.3, "sum", True),
    ]
    for instances, classes, width, temperature, reduction, normalize in cases:
        data = batch(instances, classes, width, dtype)
        assert_right(
            dtype, temperature, *data, positives=positives, reduction=reduction, normalize=normalize
        )


@pytest.mark.parametrize("dtype", (torch.float32, *LOW_PRECISION), ids=str)
@pytest.mark.parametrize("width", [64, 65, 128, 200, 256, 257, 300])
def test_every_width_has_its_kernel(harness, dtype, width):
    assert_right(dtype, 0.1, *batch(90, 7, width, dtype), positives="in", reduction="mean")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_each_pair_of_rows_is_visited_once_by_chunks(harness, dtype, order):
    # Six chunks of 128 rows, the last two partly or wholly of ignored rows.
    harness.harness_set_order(ORDERS[order], ctypes.c_uint64(5))
    for width, temperature in ((64, 0.3), (100, 0.1), (256, 0.5)):
        data = batch(700, 20, width, dtype, ignored=0.3)
        for positives in ("out", "in"):
            got = harness_losses(
                *data,
                temperature=torch.tensor(temperature),
                wanted=(True, False, False),
                positives=positives,
                reduction="none",
            )[0]
            visual, semantic, labels = data
            expected = reference.contrastive_losses(
                visual.double(),
                semantic.double(),
                labels,
                temperature=temperature,
                positives=positives,
                reduction="none",
            )[0]
            error = (got.double() - expected).abs().max() / expected.abs().max()
            assert error <= allowance(dtype, temperature)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("polynomial", [False, True])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_hoppers_kernels_match_the_oracle(harness, dtype, polynomial, order):
    harness.harness_set_hopper(2 if polynomial else 1)
    for instances, classes, width, temperature, positives, reduction, normalize in [
        (250, 3, 64, 0.3, "out", "sum", True),  # more tiles than stages
        (150, 9, 100, 0.02, "in", "mean", True),
        (131, 80, 128, 2.0, "out", "none", False),
        (200, 7, 5, 0.1, "in", "none", True),
        (1, 1, 4, 0.3, "in", "mean", True),
        (0, 3, 4, 0.3, "out", "sum", True),
    ]:
        data = batch(instances, classes, width, dtype)
        options = {"positives": positives, "reduction": reduction, "normalize": normalize}
        harness.harness_set_order(ORDERS[order], ctypes.c_uint64(5))
        harness.harness_clear_calls()
        ours = assert_right(dtype, temperature, *data, **options)
        ran = harness.harness_calls(MISSING_BARRIER).decode()
        assert instances == 0 or "hopper_backward" in ran
        assert "mma_backward" not in ran
        harness.harness_set_order(0, ctypes.c_uint64(0))
        again = losses_and_gradients(harness_losses, *data, temperature, **options)
        assert all(torch.equal(value, ours[name]) for name, value in again.items())


def test_float32_obeys_the_matmul_precision(harness):
    data = batch(90, 7, 100, torch.float32)
    full = assert_right(torch.float32, 0.1, *data, positives="in")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        fast = assert_right(torch.float32, 0.1, *data, positives="in")
    finally:
        torch.set_float32_matmul_precision(before)
    # A CPU multiplies in float32 all the same, but other kernels have run.
    assert not torch.equal(full["visual"], fast["visual"])


@pytest.fixture
def high_precision():
    """Lets float32 latents of more than 64 dimensions go through the library's products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wide_latents_in_many_chunks(harness, high_precision, dtype, positives):
    width = 100 if dtype == torch.float32 else 260
    cases = [
        # instances, classes, temperature, reduction, normalize, ignored
        (150, 9, 0.5, "sum", True, 0.1),
        (150, 9, 0.5, "none", True, 0.5),  # columns that are there but do not count
        (129, 40, 0.02, "mean", True, 0.0),  # running maxima; one row beyond a chunk
        (128, 3, 40.0, "none", False, 0.1),  # whole chunks
    ]
    for instances, classes, temperature, reduction, normalize, ignored in cases:
        data = batch(instances, classes, width, dtype, ignored=ignored)
        assert_right(
            dtype, temperature, *data, positives=positives, reduction=reduction, normalize=normalize
        )


@pytest.mark.parametrize(
    ("dtype", "rows", "temperature"),
    [(torch.float64, 140, 0.5), (torch.bfloat16, 560, 0.02)],
    ids=str,
)
def test_chunks_of_more_rows_than_a_block_takes_at_once(harness, dtype, rows, temperature):
    set_chunk(harness, rows, rows)
    data = batch(rows + 20, 5, 260, dtype, ignored=0.0)
    assert_right(dtype, temperature, *data, positives="in", reduction="mean")


def test_the_library_multiplies_no_two_chunks_twice(harness):
    instances = 230
    visual, _, labels = batch(instances, 9, 260, torch.float32)
    visual.requires_grad_()
    options = {"wanted": (True, False, False)}
    with torch.profiler.profile(record_shapes=True) as profile:
        loss = harness_losses(visual, None, labels, temperature=torch.tensor(0.5), **options)[0]
        loss.backward()
    shapes = [event.input_shapes[:2] for event in profile.events() if event.name == "aten::mm"]
    products = sum(a[0] * b[1] for a, b in shapes if a[1] == 260)
    gradients = sum(a[0] * a[1] for a, b in shapes if b[1] == 260)
    starts = range(0, instances, CHUNK[0])
    right = sum(min(CHUNK[0], instances - row) * (instances - row) for row in starts)
    assert products == 2 * right  # forward and backward
    assert gradients == instances**2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("width", [40, 260])
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_results_do_not_depend_on_the_order_of_threads(harness, dtype, width, order):
    data = batch(300 if width == 40 else 150, 6, width, dtype)
    expected = losses_and_gradients(harness_losses, *data, 0.3, positives="in")
    harness.harness_set_order(ORDERS[order], ctypes.c_uint64(7))
    ours = losses_and_gradients(harness_losses, *data, 0.3, positives="in")
    for name, value in expected.items():
        assert torch.equal(value, ours[name]), name


def test_a_backward_pass_under_autocast_multiplies_in_float32(harness):
    visual, semantic, labels = batch(90, 7, 300, torch.float32)
    visual.requires_grad_()

    def gradient():
        losses = harness_losses(visual, semantic, labels, temperature=torch.tensor(0.3))
        return torch.autograd.grad(sum(losses), visual)[0]

    expected = gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gradient(), expected)


def test_one_loss_at_a_time_and_labels_without_classes(harness):
    visual, semantic, labels = batch(60, 4, 8, torch.float64)
    fused = harness_losses(visual, semantic, labels, temperature=torch.tensor(0.5))
    for index in range(3):
        wanted = tuple(index == other for other in range(3))
        alone = harness_losses(
            visual, semantic, labels, temperature=torch.tensor(0.5), wanted=wanted
        )
        assert alone[index] == fused[index] and alone[(index + 1) % 3] == 0
    far = torch.where(labels == -100, labels, labels * 10**15 - 3)
    vtov = harness_losses(
        visual, None, far, temperature=torch.tensor(0.5), wanted=(True, False, False)
    )[0]
    torch.testing.assert_close(vtov, fused[0], rtol=1e-14, atol=0)


@pytest.mark.parametrize("positives", ["out", "in"])
def test_a_class_larger_than_many_chunks_and_classes_of_one(harness, positives):
    visual, semantic, labels = batch(700, 60, 6, torch.float32)
    labels[:500] = 3
    labels[500:520] = torch.arange(40, 60)
    assert_right(torch.float32, 0.4, visual, semantic, labels, positives=positives)


@pytest.mark.parametrize("positives", ["out", "in"])
def test_degenerate_batches_give_exactly_zero(harness, positives):
    visual, semantic, _ = batch(6, 6, 4, torch.float32)
    options = {"positives": positives, "reduction": "mean"}
    alone = losses_and_gradients(
        lambda *args, **kwargs: harness_losses(*args, wanted=(True, False, False), **kwargs),
        visual,
        semantic,
        torch.arange(6),
        1e-3,
        **options,
    )
    ignored = losses_and_gradients(
        harness_losses, visual, semantic, torch.full((6,), -100), 1e-3, **options
    )
    for results in (alone, ignored):
        for name, value in results.items():
            assert (value == 0).all(), name


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_duplicated_and_opposite_vectors_stay_finite(harness, dtype, temperature):
    point = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    visual = torch.cat([point, point, -point, -point, point]).to(dtype)
    semantic = torch.cat([point, -point]).to(dtype)
    labels = torch.tensor([0, 0, 0, 1, 1])
    for positives in ("out", "in"):
        ours = losses_and_gradients(
            harness_losses, visual, semantic, labels, temperature, positives=positives
        )
        assert all(value.isfinite().all() for value in ours.values())


def test_tiny_gradients_survive_float16(harness):
    visual, semantic, labels = batch(120, 5, 16, torch.float16)
    exact = (visual.double(), semantic.double(), labels)

    def scaled(losses, factor):
        return lambda *args, **kwargs: tuple(value * factor for value in losses(*args, **kwargs))

    ours = losses_and_gradients(scaled(harness_losses, 1e3), visual, semantic, labels, 0.5)
    oracle = losses_and_gradients(scaled(reference.contrastive_losses, 1e3), *exact, 0.5)
    assert errors(ours, oracle)["visual"] < 2e-3
    options = {"reduction": "mean"}
    ours = losses_and_gradients(harness_losses, visual, semantic, labels, 0.5, **options)
    oracle = losses_and_gradients(reference.contrastive_losses, *exact, 0.5, **options)
    assert errors(ours, oracle)["visual"] < 2e-3


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_small_gradients_of_a_learned_batch_survive_rounding(harness, dtype):
    # Each instance lies at its own class, so that its weight there, nearly 1, meets its target, 1.
    generator = torch.Generator().manual_seed(0)
    semantic = torch.nn.functional.normalize(torch.randn(6, 64, generator=generator), dim=1)
    labels = torch.arange(90) % 6
    visual = semantic[labels] + 0.02 * torch.randn(90, 64, generator=generator)
    data = (visual.to(dtype), semantic.to(dtype), labels)
    exact = (data[0].double(), data[1].double(), labels)

    ours, oracle = (
        torch.autograd.grad(
            losses(leaf, other, labels, temperature=torch.tensor(0.12, dtype=torch.float64))[1],
            (leaf, other),
        )
        for losses, leaf, other in (
            (harness_losses, data[0].requires_grad_(), data[1].requires_grad_()),
            (reference.contrastive_losses, exact[0].requires_grad_(), exact[1].requires_grad_()),
        )
    )
    for got, want in zip(ours, oracle, strict=True):
        assert (got.double() - want).norm() < 0.05 * want.norm()


def test_a_label_out_of_range_stops_the_launch(harness):
    visual, semantic, labels = batch(10, 3, 4, torch.float32)
    labels[4] = 3
    with pytest.raises(RuntimeError, match=r"entry of `labels` to be a class in \[0, C\)"):
        harness_losses(visual, semantic, labels, temperature=torch.tensor(0.5))


def gaussians(instances, classes, width, dtype, labelled):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (instances,), generator=generator) if labelled else None
    if labelled:
        labels[: instances // 2] = 0
    rows = (instances, instances, *([classes] * 2 if labelled else [instances] * 2))
    tensors = [
        torch.randn(size, width, dtype=torch.float64, generator=generator).to(dtype)
        for size in rows
    ]
    tensors[0][:1], tensors[1][:1] = tensors[2][:1], tensors[3][:1]  # at distance 0
    return tensors, labels


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wasserstein_alignment_matches_the_oracle(harness, dtype, labelled, order):
    harness.harness_set_order(ORDERS[order], ctypes.c_uint64(3))
    for instances, classes, width, reduction in [
        (300, 5, 8, "sum"),
        (70, 30, 33, "mean"),
        (5, 2, 1, "none"),
        (0, 2, 4, "mean"),
    ]:
        tensors, labels = gaussians(instances, classes, width, dtype, labelled)
        results = []
        for function, inputs in (
            (torch.ops.mcfa_fast_harness.wasserstein_forward, tensors),
            (reference.wasserstein_alignment, [tensor.double() for tensor in tensors]),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            if function is reference.wasserstein_alignment:
                loss = function(*leaves, labels, reduction=reduction)
            else:
                loss = function(*leaves, labels, reduction)[0]
            results.append((loss, *torch.autograd.grad((loss * 0.7).sum(), leaves)))
        tolerance = {torch.float64: 1e-13, torch.float32: 1e-6}.get(
            dtype, 2 * torch.finfo(dtype).eps
        )
        for ours, expected in zip(*results, strict=True):
            if expected.numel():
                error = (ours.double() - expected).abs().max()
                assert error <= tolerance * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_divergence_matches_the_oracle(harness, dtype):
    for rows, width, reduction in [
        (300, 8, "sum"),
        (70, 33, "mean"),
        (5, 1, "none"),
        (0, 4, "sum"),
    ]:
        mean, logvar = torch.randn(2, rows, width, dtype=torch.float64).to(dtype)
        results = []
        for function, inputs in (
            (torch.ops.mcfa_fast_harness.kl_forward, (mean, logvar)),
            (reference.kl_divergence, (mean.double(), logvar.double())),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs]
            if function is reference.kl_divergence:
                loss = function(*leaves, reduction=reduction)
            else:
                loss = function(*leaves, reduction)
            results.append((loss, *torch.autograd.grad((loss * 0.7).sum(), leaves)))
        tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}.get(
            dtype, 2 * torch.finfo(dtype).eps
        )
        for ours, expected in zip(*results, strict=True):
            if expected.numel():
                error = (ours.double() - expected).abs().max()
                assert error <= tolerance * max(1.0, expected.abs().max().item())


def reconstruction(instances, classes, width, dtype, labelled):
    """Rows, table and labels: a class of half of the rows, an absent one, and a distance of 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (instances,), generator=generator)
    labels[: instances // 2] = classes // 2
    labels[labels == 0] = classes - 1
    rows = torch.randn(instances, width, dtype=torch.float64, generator=generator).to(dtype)
    table = torch.randn(classes, width, dtype=torch.float64, generator=generator).to(dtype)
    if not labelled:
        table, labels = table[labels], None
    rows[:1] = table[:1] if labels is None else table[labels[:1]]
    return rows, table, labels


def assert_l1_right(rows, table, labels, reduction, wanted=(True, True)):
    results = []
    for module, inputs in (
        ("harness", (rows, table)),
        (reference, (rows.double(), table.double())),
    ):
        leaves = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(inputs, wanted, strict=True)
        ]
        if module is reference:
            loss = reference.l1_reconstruction(*leaves, labels, reduction=reduction)
        else:
            loss = torch.ops.mcfa_fast_harness.l1_forward(*leaves, labels, reduction)
        weights = torch.linspace(0.5, 2.0, max(loss.numel(), 1), dtype=loss.dtype)[: loss.numel()]
        total = (loss * weights.reshape(loss.shape)).sum()
        needed = [leaf for leaf in leaves if leaf.requires_grad]
        results.append((loss, *torch.autograd.grad(total, needed)))
    for ours, expected in zip(*results, strict=True):
        if expected.numel():
            tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}.get(
                ours.dtype, torch.finfo(ours.dtype).eps
            )
            error = (ours.double() - expected).abs().max()
            assert error <= tolerance * max(1.0, expected.abs().max().item())
    return results[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_l1_reconstruction_matches_the_oracle(harness, dtype, labelled, order):
    harness.harness_set_order(ORDERS[order], ctypes.c_uint64(5))
    for instances, classes, width, reduction in [
        (700, 4, 8, "sum"),  # more chunks of a class than a block has warps
        (200, 40, 48, "none"),
        (70, 30, 33, "mean"),
        (33, 2, 1, "none"),
        (1, 1, 3, "sum"),
        (0, 2, 4, "mean"),
        (3, 2, 0, "sum"),
    ]:
        data = reconstruction(instances, classes, width, dtype, labelled)
        both = assert_l1_right(*data, reduction)
        for wanted in ((True, False), (False, True)):
            alone = assert_l1_right(*data, reduction, wanted)
            assert torch.equal(alone[1], both[1 if wanted[0] else 2])


def test_l1_reconstruction_stops_at_a_label_out_of_range(harness):
    rows, table, labels = reconstruction(10, 3, 4, torch.float32, True)
    for bad in (3, -1):
        labels[4] = bad
        with pytest.raises(RuntimeError, match=r"entry of `labels` to be a class in \[0, C\)"):
            torch.ops.mcfa_fast_harness.l1_forward(rows, table, labels, "sum")
        for mask in ([True, False], [False, True]):
            with pytest.raises(RuntimeError, match=r"entry of `labels` to be a class in"):
                torch.ops.mcfa_fast_harness.l1_backward(
                    torch.tensor(1.0), rows, table, labels, "sum", mask
                )


@pytest.mark.parametrize("noise_per_row", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reparameterization_matches_the_oracle(harness, dtype, noise_per_row):
    generator = torch.Generator().manual_seed(0)
    for rows, width, power in [
        (300, 8, 0.5),
        (70, 33, 1.0),
        (40, 16, 1.0),
        (5, 1, 0.5),
        (0, 4, 0.5),
    ]:
        mean, logvar, upstream, noise = (
            torch.randn(4, rows, width, dtype=torch.float64, generator=generator).to(dtype).unbind()
        )
        noise = noise[:, :1] if noise_per_row else noise
        results = []
        for function, inputs in (
            (torch.ops.mcfa_fast_harness.reparameterize_forward, (mean, logvar, noise, upstream)),
            (reference.reparameterize, [t.double() for t in (mean, logvar, noise, upstream)]),
        ):
            leaves = [tensor.detach().requires_grad_() for tensor in inputs[:2]]
            if function is reference.reparameterize:
                samples = function(*leaves, inputs[2], power=power)
            else:
                samples = function(*leaves, inputs[2], power)
            results.append((samples, *torch.autograd.grad(samples, leaves, inputs[3])))
        tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}.get(dtype, torch.finfo(dtype).eps)
        for ours, expected in zip(*results, strict=True):
            if expected.numel():
                error = (ours.double() - expected).abs().max()
                assert error <= tolerance * max(1.0, expected.abs().max().item())


# Planted mistakes. The scenarios run in each order of threads; a mistake is caught if in some order
# the harness stops or a result leaves what the oracle allows.


def scenarios(dtype):
    """More tiles in a split than stages of shared memory; a running maximum; latents too wide for
    the fused kernels. With temperatures."""
    yield 0.3, batch(250, 3, 40, dtype)
    yield 0.02, batch(150, 3, 24, dtype)
    yield 0.3, batch(150, 3, 260, dtype)


def run_scenarios(dtype):
    for temperature, data in scenarios(dtype):
        assert_right(dtype, temperature, *data, positives="in", reduction="none")
    assert_l1_right(*reconstruction(600, 3, 8, dtype, True), "none")


def caught(harness, dtype, fault, line):
    harness.harness_plant(fault, line.encode())
    try:
        for order in ORDERS.values():
            harness.harness_set_order(order, ctypes.c_uint64(11))
            run_scenarios(dtype)
    except (AssertionError, RuntimeError):
        return True
    finally:
        harness.harness_plant(0, b"")
    return False


def lines_of(harness, fault, dtype):
    harness.harness_clear_calls()
    run_scenarios(dtype)
    return harness.harness_calls(fault).decode().split()


@pytest.mark.parametrize(
    ("fault", "dtype", "hopper"),
    [
        (MISSING_BARRIER, torch.float32, False),
        (MISSING_BARRIER, torch.bfloat16, False),
        (MISSING_BARRIER, torch.bfloat16, True),
        (MISSING_WAIT, torch.bfloat16, False),
        (MISSING_WAIT, torch.bfloat16, True),
        (WRONG_ADDRESS, torch.bfloat16, False),
        (WRONG_ADDRESS, torch.bfloat16, True),
        (MISSING_FENCE, torch.bfloat16, True),
    ],
    ids=str,
)
def test_every_planted_mistake_is_caught(harness, fault, dtype, hopper):
    harness.harness_set_hopper(hopper)
    lines = lines_of(harness, fault, dtype)
    if hopper:
        lines = [line for line in lines if line.startswith("hopper_")]
    assert lines
    missed = [line for line in lines if not caught(harness, dtype, fault, line)]
    # After its loop a pair kernel waits for copies only so that none outlives the block.
    missed = [line for line in missed if "copy_async_wait<0>" not in source_line(line)]
    assert not missed, f"{missed} of {lines}"


def source_line(place):
    name, line = place.split(":")
    (path,) = (HARNESS.parents[1] / "csrc").rglob(name)
    return path.read_text().splitlines()[int(line) - 1]
