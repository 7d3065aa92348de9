"""The contrastive losses' CUDA code in the harness: which kernels run where, and hard batches."""

import pytest
import torch
from harness_control import CHUNK, HOPPER, HOPPER_POLYNOMIAL, MISSING_BARRIER, ORDERS
from op_samples import FUNCTIONS, Sample, batch, largest_error, values_and_gradients

from mcfa_fast import functional, reference

LOW_PRECISION = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, *LOW_PRECISION)
TOLERANCE = FUNCTIONS[0].tolerance


def sample_of(data, dtype, temperature, **options):
    """Latents in `dtype`, with a temperature in float64, and options."""
    options = {"temperature": torch.tensor(temperature, dtype=torch.float64), **options}
    sample = Sample(data).to(dtype)
    return sample._replace(options=options)


def assert_right(sample):
    """The results of our kernels, once they are seen to be those of the oracle."""
    dtype = sample.tensors[0].dtype
    oracle = values_and_gradients(reference.contrastive_losses, sample.to(torch.float64))
    ours = values_and_gradients(functional.contrastive_losses, sample)
    assert largest_error(ours, oracle) <= TOLERANCE(dtype, sample.options)
    return ours


def all_equal(results, others):
    return all(torch.equal(got, want) for got, want in zip(results, others, strict=True))


@pytest.mark.parametrize("most", [2, 64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_each_pair_of_rows_is_visited_once_by_chunks(harness, dtype, order, most):
    # Six blocks of 128 rows, the last two partly or wholly of ignored rows; three in each chunk
    # where there are at most two.
    harness.order(order, seed=5)
    harness.symmetric_chunks(most)
    for width, temperature in ((64, 0.3), (100, 0.1), (256, 0.5)):
        visual, _, labels = batch(700, 20, width, ignored=0.3)
        for positives in ("out", "in"):
            sample = sample_of((visual, labels), dtype, temperature, positives=positives)
            loss, expected = (
                module.vtov_loss(*exact.tensors, **exact.options, reduction="none")
                for module, exact in (
                    (functional, sample),
                    (reference, sample.to(torch.float64)),
                )
            )
            assert largest_error([loss], [expected]) <= TOLERANCE(dtype, sample.options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernels", [HOPPER, HOPPER_POLYNOMIAL])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_hoppers_kernels_match_the_oracle(harness, dtype, kernels, order):
    harness.hopper(kernels)
    for instances, classes, width, temperature, positives, reduction, normalize in [
        (250, 3, 64, 0.3, "out", "sum", True),  # more tiles than stages
        (150, 9, 100, 0.02, "in", "mean", True),
        (131, 80, 128, 2.0, "out", "none", False),
        (200, 7, 5, 0.1, "in", "none", True),
        (1, 1, 4, 0.3, "in", "mean", True),
        (0, 3, 4, 0.3, "out", "sum", True),
    ]:
        options = {"positives": positives, "reduction": reduction, "normalize": normalize}
        sample = sample_of(batch(instances, classes, width), dtype, temperature, **options)
        harness.order(order, seed=5)
        harness.forget_lines()
        ours = assert_right(sample)
        ran = " ".join(harness.lines(MISSING_BARRIER))
        assert instances == 0 or "hopper_backward" in ran
        assert "mma_backward" not in ran
        harness.order("ascending")
        assert all_equal(values_and_gradients(functional.contrastive_losses, sample), ours)


@pytest.fixture
def high_precision():
    """Lets float32 latents of more than 64 dimensions go through the library's products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def tf32():
    """The same by PyTorch's newer setting."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("setting", ["high_precision", "tf32"])
def test_float32_obeys_the_matmul_precision(harness, request, setting):
    sample = sample_of(batch(90, 7, 100), torch.float32, 0.1, positives="in")
    full = assert_right(sample)
    request.getfixturevalue(setting)
    # A CPU multiplies in float32 all the same, but other kernels have run.
    assert not all_equal(assert_right(sample), full)


@pytest.mark.parametrize("positives", ["out", "in"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wide_latents_in_many_chunks(harness, high_precision, dtype, positives):
    width = 100 if dtype == torch.float32 else 260
    for instances, classes, temperature, reduction, normalize, ignored in [
        (150, 9, 0.5, "sum", True, 0.1),
        (150, 9, 0.5, "none", True, 0.5),  # columns that are there but do not count
        (129, 40, 0.02, "mean", True, 0.0),  # running maxima; one row beyond a chunk
        (128, 3, 40.0, "none", False, 0.1),  # whole chunks
    ]:
        data = batch(instances, classes, width, ignored=ignored)
        options = {"positives": positives, "reduction": reduction, "normalize": normalize}
        assert_right(sample_of(data, dtype, temperature, **options))


@pytest.mark.parametrize(
    ("dtype", "rows", "temperature"),
    [(torch.float64, 140, 0.5), (torch.bfloat16, 560, 0.02)],
    ids=str,
)
def test_chunks_of_more_rows_than_a_block_takes_at_once(harness, dtype, rows, temperature):
    harness.chunk(rows, rows)
    options = {"positives": "in", "reduction": "mean"}
    assert_right(sample_of(batch(rows + 20, 5, 260, ignored=0.0), dtype, temperature, **options))


def test_the_library_multiplies_no_two_chunks_twice(harness):
    instances = 230
    visual, _, labels = batch(instances, 9, 260)
    visual = visual.float().requires_grad_()
    with torch.profiler.profile(record_shapes=True) as profile:
        functional.vtov_loss(visual, labels, temperature=0.5).backward()
    shapes = [event.input_shapes[:2] for event in profile.events() if event.name == "aten::mm"]
    products = sum(a[0] * b[1] for a, b in shapes if a[1] == 260)
    gradients = sum(a[0] * a[1] for a, b in shapes if b[1] == 260)
    starts = range(0, instances, CHUNK[0])
    right = sum(min(CHUNK[0], instances - row) * (instances - row) for row in starts)
    assert products == 2 * right  # forward and backward
    assert gradients == instances**2


def test_a_backward_pass_under_autocast_multiplies_in_float32(harness):
    sample = sample_of(batch(90, 7, 300), torch.float32, 0.3)
    expected = values_and_gradients(functional.contrastive_losses, sample)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all_equal(values_and_gradients(functional.contrastive_losses, sample), expected)


def test_one_loss_at_a_time_and_labels_without_classes(harness):
    visual, semantic, labels = batch(60, 4, 8)
    fused = functional.contrastive_losses(visual, semantic, labels, temperature=0.5)
    vtov = functional.vtov_loss(visual, labels, temperature=0.5)
    vtos = functional.vtos_loss(visual, semantic, labels, temperature=0.5)
    stov = functional.stov_loss(visual, semantic, labels, temperature=0.5)
    assert all_equal((vtov, vtos, stov), fused)
    far = torch.where(labels == -100, labels, labels * 10**15 - 3)
    torch.testing.assert_close(
        functional.vtov_loss(visual, far, temperature=0.5), vtov, rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("positives", ["out", "in"])
def test_a_class_larger_than_many_chunks_and_classes_of_one(harness, positives):
    visual, semantic, labels = batch(700, 60, 6)
    labels[:500] = 3
    labels[500:520] = torch.arange(40, 60)
    assert_right(sample_of((visual, semantic, labels), torch.float32, 0.4, positives=positives))


@pytest.mark.parametrize("positives", ["out", "in"])
def test_degenerate_batches_give_exactly_zero(harness, positives):
    visual, semantic, _ = batch(6, 6, 4)
    options = {"positives": positives, "reduction": "mean"}
    alone = sample_of((visual, torch.arange(6)), torch.float32, 1e-3, **options)
    ignored = sample_of((visual, semantic, torch.full((6,), -100)), torch.float32, 1e-3, **options)
    for results in (
        values_and_gradients(functional.vtov_loss, alone),
        values_and_gradients(functional.contrastive_losses, ignored),
    ):
        assert all((value == 0).all() for value in results)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_duplicated_and_opposite_vectors_stay_finite(harness, dtype, temperature):
    point = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    visual = torch.cat([point, point, -point, -point, point])
    data = (visual, torch.cat([point, -point]), torch.tensor([0, 0, 0, 1, 1]))
    for positives in ("out", "in"):
        sample = sample_of(data, dtype, temperature, positives=positives)
        ours = values_and_gradients(functional.contrastive_losses, sample)
        assert all(value.isfinite().all() for value in ours)


def test_tiny_gradients_survive_float16(harness):
    sample = sample_of(batch(120, 5, 16), torch.float16, 0.5)
    for factor, reduction in ((1e3, "sum"), (1.0, "mean")):

        def scaled(losses, factor=factor, reduction=reduction):
            return lambda *args, **options: tuple(
                value * factor for value in losses(*args, reduction=reduction, **options)
            )

        ours = values_and_gradients(scaled(functional.contrastive_losses), sample)
        exact = sample.to(torch.float64)
        oracle = values_and_gradients(scaled(reference.contrastive_losses), exact)
        assert largest_error(ours[3:4], oracle[3:4]) < 2e-3


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_small_gradients_of_a_learned_batch_survive_rounding(harness, dtype):
    # Each instance lies at its own class, so that its weight there, nearly 1, meets its target, 1.
    generator = torch.Generator().manual_seed(0)
    semantic = torch.nn.functional.normalize(torch.randn(6, 64, generator=generator), dim=1)
    labels = torch.arange(90) % 6
    visual = semantic[labels] + 0.02 * torch.randn(90, 64, generator=generator)
    sample = sample_of((visual, semantic, labels), dtype, 0.12)
    ours = values_and_gradients(functional.vtos_loss, sample)
    oracle = values_and_gradients(reference.vtos_loss, sample.to(torch.float64))
    for got, want in zip(ours[1:3], oracle[1:3], strict=True):
        assert (got.double() - want).norm() < 0.05 * want.norm()


@pytest.mark.parametrize(("y", "z"), [(0, 1), (1, 0), (65536, 1), (1, 65536)])
def test_the_harness_refuses_grids_that_a_gpu_does_not_take(library, y, z):
    assert library.harness_try_grid(1, y, z) == 0
    assert library.harness_try_grid(1, 1, 1) == 1
