"""Independent streams of random numbers."""

from __future__ import annotations

import itertools

import pytest
import torch

from mcfa_fast.storage import random_stream


def draw(seed, stream):
    return torch.rand(1000, generator=random_stream(seed, stream))


def test_a_stream_is_repeatable_whatever_was_drawn_before():
    first = draw(3, "noise")
    torch.manual_seed(0)
    torch.rand(7)
    draw(3, "sampler")
    assert torch.equal(draw(3, "noise"), first)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw(5, "noise")
    assert torch.equal(torch.rand(3), expected)


def test_streams_and_seeds_are_independent():
    keys = list(itertools.product((0, 1, 2, 10, 2**63), ("noise", "sampler", "weights")))
    values = torch.stack([draw(*key) for key in keys])
    correlations = torch.corrcoef(values) - torch.eye(len(keys))
    assert correlations.abs().max() < 0.2  # 6 standard deviations of independent streams


@pytest.mark.parametrize("seed", [-1, 0, 2**64, 2**200])
def test_every_integer_is_a_seed(seed):
    assert 0.4 < draw(seed, "noise").mean() < 0.6


def test_seeds_of_streams_are_pinned():
    # Runs of earlier releases resume to the same result only as long as the streams are the same.
    assert random_stream(0, "sampler").initial_seed() == 2966664751279844092
