"""Mistakes planted in the kernels, one at a time, to show that the harness's tests notice them.

The scenarios run in each order of threads; a mistake is caught if in some order the harness stops
or a result leaves what the oracle allows.
"""

import pytest
import torch
from build_harness import SOURCE
from harness_control import (
    HOPPER,
    MISSING_BARRIER,
    MISSING_FENCE,
    MISSING_WAIT,
    OFF,
    ORDERS,
    WRONG_ADDRESS,
)
from op_samples import FUNCTIONS, batch, largest_error, table_rows, values_and_gradients
from test_cuda_contrastive import assert_right, sample_of

from mcfa_fast import functional, reference

L1 = next(function for function in FUNCTIONS if function.name == "l1_reconstruction")


def run_scenarios(dtype):
    """More tiles in a split than stages of shared memory; a running maximum; latents too wide for
    the fused kernels; a class of more rows than a block has warps for."""
    options = {"positives": "in", "reduction": "none"}
    for temperature, shape in ((0.3, (250, 3, 40)), (0.02, (150, 3, 24)), (0.3, (150, 3, 260))):
        assert_right(sample_of(batch(*shape), dtype, temperature, **options))
    sample = table_rows(600, 3, 8).to(dtype)._replace(options={"reduction": "none"})
    ours = values_and_gradients(functional.l1_reconstruction, sample)
    oracle = values_and_gradients(reference.l1_reconstruction, sample.to(torch.float64))
    assert largest_error(ours, oracle) <= L1.tolerance(dtype, sample.options)


def caught(harness, dtype, fault, line):
    harness.plant(fault, line)
    try:
        for order in ORDERS:
            harness.order(order, seed=11)
            run_scenarios(dtype)
    except (AssertionError, RuntimeError):
        return True
    finally:
        harness.plant(0, "")
    return False


def source_line(place):
    name, line = place.split(":")
    return (SOURCE / name).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("fault", "dtype", "kernels"),
    [
        (MISSING_BARRIER, torch.float32, OFF),
        (MISSING_BARRIER, torch.bfloat16, OFF),
        (MISSING_BARRIER, torch.bfloat16, HOPPER),
        (MISSING_WAIT, torch.bfloat16, OFF),
        (MISSING_WAIT, torch.bfloat16, HOPPER),
        (WRONG_ADDRESS, torch.bfloat16, OFF),
        (WRONG_ADDRESS, torch.bfloat16, HOPPER),
        (MISSING_FENCE, torch.bfloat16, HOPPER),
    ],
    ids=str,
)
def test_every_planted_mistake_is_caught(harness, fault, dtype, kernels):
    harness.hopper(kernels)
    harness.forget_lines()
    run_scenarios(dtype)
    lines = harness.lines(fault)
    if kernels == HOPPER:
        lines = [line for line in lines if "/hopper_" in line]
    assert lines
    missed = [line for line in lines if not caught(harness, dtype, fault, line)]
    # After its loop a pair kernel waits for copies only so that none outlives the block.
    missed = [line for line in missed if "copy_async_wait<0>" not in source_line(line)]
    assert not missed, f"{missed} of {lines}"
