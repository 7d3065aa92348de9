"""Exact search against plain PyTorch, over every way that it chooses."""

import pytest
import torch

from mcfa_fast.search import exact

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def narrow(monkeypatch):
    """Makes the way of many vectors start early, so that it is tried on few."""
    monkeypatch.setattr(exact, "_WIDE", 500)
    monkeypatch.setattr(exact, "_WIDE_ROWS", 7)
    monkeypatch.setattr(exact, "_WIDE_COLUMNS", 256)
    monkeypatch.setattr(exact, "_GROUP", 8)
    monkeypatch.setattr(exact, "_SCAN", 0)


@pytest.mark.parametrize("l2", [False, True])
@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("width", [1, 70, 501, 2048, 2051])
@pytest.mark.parametrize("k", [1, 5, 12])
def test_nearest_equals_sorting_all(l2, count, width, k, narrow):
    queries, vectors, k = normal(count, 9), normal(width, 9, seed=1), min(k, width)
    scores, rows = exact.ExactSearch(vectors, l2=l2)(queries, k)
    if l2:
        every = (queries.double()[:, None] - vectors.double()).square().sum(dim=2)
    else:
        every = queries.double() @ vectors.double().T
    wanted, order = every.sort(dim=1, descending=not l2)
    torch.testing.assert_close(scores.double(), wanted[:, :k], atol=1e-5, rtol=1e-5)
    assert torch.equal(rows, order[:, :k])


@pytest.mark.parametrize("width", [501, 510, 1000])
def test_padding_is_never_found(width, narrow):
    """All products are negative, so that a padded 0 would win."""
    vectors = -normal(width, 9).abs()
    scores, rows = exact.ExactSearch(vectors, l2=False)(normal(3, 9).abs(), 20)
    assert (scores < 0).all()
    assert rows.max() < width
    assert all(len(set(row)) == 20 for row in rows.tolist())


def test_distances_of_nearly_equal_vectors_keep_their_digits():
    vectors = 1000 + 1e-2 * normal(100, 4).round(decimals=2)
    distances, _ = exact.ExactSearch(vectors, l2=True)(vectors[:50], 2)
    wanted = torch.cdist(vectors[:50].double(), vectors.double()).square().sort(dim=1)[0][:, :2]
    assert (distances[:, 0] == 0).all()
    torch.testing.assert_close(distances.double(), wanted, atol=0, rtol=1e-6)


def test_no_queries():
    scores, rows = exact.ExactSearch(torch.ones(4, 3), l2=False)(torch.empty(0, 3), 2)
    assert scores.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_top_columns_equals_topk_with_equal_values(k, monkeypatch):
    monkeypatch.setattr(exact, "_MANY_ROWS", 0)
    scores = normal(50, 30).round()
    wanted = scores.topk(k, dim=1).values
    values, columns = exact.top_columns(scores.clone(), k)
    assert torch.equal(values, wanted)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())
