"""Which rows batches are made of."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast.training import BatchSampler, EpisodicSampler, TrainingConfig
from mcfa_fast.training.sampler import make_sampler

SETTINGS = settings(max_examples=60, deadline=None)


@st.composite
def labels_strategy(draw):
    """Shuffled labels with gaps between class numbers and unequal class sizes."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    numbers = draw(st.permutations(range(2 * len(sizes))))[: len(sizes)]
    labels = torch.repeat_interleave(torch.tensor(numbers), torch.tensor(sizes))
    order = torch.randperm(len(labels), generator=seeded(draw(st.integers(0, 99))))
    return labels[order]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def positions_within_class(labels):
    """Of each row: how many earlier rows have its class."""
    seen, positions = {}, []
    for label in labels.tolist():
        positions.append(seen.get(label, 0))
        seen[label] = positions[-1] + 1
    return torch.tensor(positions)


@SETTINGS
@given(
    labels=labels_strategy(),
    k=st.integers(1, 12),
    shared=st.booleans(),
    window=st.none() | st.integers(1, 12),
    data=st.data(),
)
def test_episodes(labels, k, shared, window, data):
    sizes = dict(zip(*(t.tolist() for t in torch.unique(labels, return_counts=True)), strict=True))
    c = data.draw(st.integers(1, len(sizes)))
    sampler = EpisodicSampler(labels, c, k, seeded(0), shared_offsets=shared, offset_window=window)
    batches = list(sampler)
    assert len(batches) == len(sampler) == math.ceil(len(labels) / (c * k))
    positions = positions_within_class(labels)
    for batch in batches:
        assert len(set(batch.classes.tolist())) == len(batch.classes) == c
        assert batch.labels.tolist() == [i for i in range(c) for _ in range(k)]
        assert torch.equal(labels[batch.rows], batch.classes[batch.labels])
        offsets = positions[batch.rows].view(c, k)
        if shared:
            assert (offsets == offsets[0]).all()
        for number, row in zip(batch.classes.tolist(), offsets.tolist(), strict=True):
            usable = min(min(sizes.values()) if shared else sizes[number], window or len(labels))
            assert max(row) < usable
            repeats = [row.count(offset) for offset in set(row)]
            assert len(repeats) == min(k, usable)
            assert max(repeats) - min(repeats) <= 1


def test_unshared_offsets_differ_between_classes():
    labels = torch.arange(4).repeat_interleave(50)
    batch = next(iter(EpisodicSampler(labels, 4, 10, seeded(0))))
    offsets = (batch.rows % 50).view(4, 10)
    assert not (offsets == offsets[0]).all()


@pytest.mark.parametrize("shared", [False, True])
def test_classes_and_rows_are_drawn_uniformly(shared):
    labels = torch.arange(6).repeat_interleave(8)
    sampler = EpisodicSampler(labels, 3, 2, seeded(0), shared_offsets=shared)
    rows = torch.cat([batch.rows for _ in range(300) for batch in sampler])
    counts = torch.bincount(rows, minlength=48)
    expected = len(rows) / 48
    assert expected == 300
    # Each count is close to binomial; 5 standard deviations never happen by chance.
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    per_class = counts.view(6, 8).sum(1)
    assert (per_class - 8 * expected).abs().max() < 5 * math.sqrt(8 * expected)


@SETTINGS
@given(labels=labels_strategy(), size=st.none() | st.integers(1, 60))
def test_plain_batches(labels, size):
    sampler = BatchSampler(labels, size, seeded(0))
    classes = torch.unique(labels)
    for _ in range(2):
        batches = list(sampler)
        limit = len(labels) if size is None else min(size, len(labels))
        assert len(batches) == len(sampler) == math.ceil(len(labels) / limit)
        assert [len(b.rows) for b in batches[:-1]] == [limit] * (len(batches) - 1)
        rows = torch.cat([b.rows for b in batches])
        assert sorted(rows.tolist()) == list(range(len(labels)))
        for batch in batches:
            assert torch.equal(batch.classes, classes)
            assert torch.equal(labels[batch.rows], classes[batch.labels])


def test_plain_batches_are_shuffled_anew_every_epoch():
    sampler = BatchSampler(torch.zeros(30, dtype=torch.int64), None, seeded(0))
    (first,), (second,) = list(sampler), list(sampler)
    assert not torch.equal(first.rows, second.rows)
    assert not torch.equal(first.rows, torch.arange(30))


@pytest.mark.parametrize(
    "config",
    [TrainingConfig(sampler="episodic", classes_per_batch=2), TrainingConfig(batch_size=5)],
)
def test_generator_state_determines_the_batches(config):
    labels = torch.arange(3).repeat_interleave(9)
    torch.manual_seed(0)
    generator = seeded(1)
    sampler = make_sampler(config, labels, generator)
    list(sampler)
    state = generator.get_state()
    torch.manual_seed(123)
    expected = list(sampler)
    other = seeded(7)
    other.set_state(state)
    for batch, want in zip(make_sampler(config, labels, other), expected, strict=True):
        assert torch.equal(batch.rows, want.rows)
        assert torch.equal(batch.classes, want.classes)
        assert torch.equal(batch.labels, want.labels)


def test_make_sampler_passes_the_options_on():
    labels = torch.arange(4).repeat_interleave(20)
    config = TrainingConfig(
        sampler="episodic",
        classes_per_batch=3,
        instances_per_class=4,
        shared_offsets=True,
        offset_window=6,
    )
    for batch in make_sampler(config, labels, seeded(0)):
        offsets = (batch.rows % 20).view(3, 4)
        assert (offsets == offsets[0]).all()
        assert offsets.max() < 6


def test_more_classes_per_batch_than_there_are():
    labels = torch.tensor([0, 0, 5, 5])
    with pytest.raises(ValueError, match=r"classes_per_batch: expected at most the 2 .* got 3"):
        EpisodicSampler(labels, 3, 1, seeded(0))
