"""Shares of batches, without processes; `test_torchrun.py` has those."""

import numpy as np
import pytest
import torch

from mcfa_fast.data.features import FeatureRows
from mcfa_fast.data.npy import NpyFile
from mcfa_fast.training import Batch, Share, World
from mcfa_fast.training.placement import place
from mcfa_fast.training.ranks import draw_rows, mean_over_batch


def ranks(size):
    """The ranks of a group that never meet."""
    found = [World() for _ in range(size)]
    for rank, world in enumerate(found):
        world.rank, world.size, world.group = rank, size, "group"
    return found


@pytest.mark.parametrize(("total", "size"), [(7, 1), (7, 3), (2, 4), (0, 2), (8, 2)])
def test_shares_follow_one_another_and_are_of_one_size(total, size):
    rows = np.arange(total)
    parts = [rows[world.rows(total)] for world in ranks(size)]
    assert np.array_equal(np.concatenate(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_has_the_whole_batch():
    assert World().share(torch.arange(3)) is None
    assert World().gather(b"a") == [b"a"] and World().from_first(lambda: b"b") == b"b"
    assert torch.equal(World().sum(torch.ones(2)), torch.ones(2))


def test_random_rows_are_those_of_one_process():
    def draw(rows):
        return torch.rand(rows, 3, generator=torch.Generator().manual_seed(0))

    shares = [world.share(torch.zeros(5)) for world in ranks(3)]
    parts = [draw_rows(draw, share.rows.stop - share.rows.start, share) for share in shares]
    assert torch.equal(torch.cat(parts), draw_rows(draw, 5, None))


def test_parts_of_a_mean_add_up_to_it():
    values = torch.rand(5, dtype=torch.float64)
    shares = [world.share(values) for world in ranks(7)]
    parts = [mean_over_batch(values[share.rows], share) for share in shares]
    torch.testing.assert_close(sum(parts), mean_over_batch(values, None))


def test_what_every_rank_knows_counts_once():
    for world in ranks(2):
        value = torch.tensor(3.0, requires_grad=True)
        counted = Share(world, slice(0, 1), torch.zeros(2)).once(2 * value)
        counted.backward()
        assert counted.item() == (6 if world.first else 0) and value.grad == 2


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_rank_reads_its_rows_alone(size, resident, tmp_path):
    matrix = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", matrix)
    features = FeatureRows(NpyFile(tmp_path / "rows.npy"))
    batches = [
        Batch(torch.tensor(rows), torch.arange(1), torch.zeros(len(rows), dtype=torch.int64))
        for rows in ([3, 1, 4, 15], [9, 2, 6], [5])
    ]
    placed = place(features, torch.nn.Identity(), torch.device("cpu"), resident)
    by_rank = [[rows for _, rows in placed.batches(batches, world)] for world in ranks(size)]
    for batch, parts in zip(batches, zip(*by_rank, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), torch.from_numpy(matrix)[batch.rows])


def test_a_group_of_others_is_refused():
    with pytest.raises(ValueError, match="group: expected one that this process belongs to"):
        World(torch.distributed.GroupMember.NON_GROUP_MEMBER)
