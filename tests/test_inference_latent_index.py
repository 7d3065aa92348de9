"""The index against distances computed pair by pair, and its file against FAISS itself."""

import sys

import faiss
import numpy as np
import pytest
import torch

from mcfa_fast.inference import LatentIndex

DIM = 7


def vectors(rows, seed=0, **options):
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed), **options)


def filled(metric="cosine", rows=20):
    index = LatentIndex(DIM, metric)
    ids = torch.arange(rows) * 3 + 5
    index.add(vectors(rows), ids)
    return index, ids


def similarity(a, b, metric):
    a, b = a.double(), b.double()
    if metric == "cosine":
        return float(a @ b / (a.norm() * b.norm()))
    return float(((a - b) ** 2).sum())


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("rows", [3, 50])  # FAISS computes few and many queries differently
def test_search_equals_brute_force(metric, rows):
    index, ids = filled(metric)
    queries = vectors(rows, seed=1)
    scores, found = index.search(queries, k=6)
    assert (scores.dtype, found.dtype) == (torch.float32, torch.int64)
    stored = list(zip(ids, vectors(20), strict=True))
    for query, query_scores, query_ids in zip(queries, scores, found, strict=True):
        pairs = [(similarity(query, v, metric), int(i)) for i, v in stored]
        best = sorted(pairs, reverse=metric == "cosine")[:6]
        assert query_ids.tolist() == [i for _, i in best]
        assert query_scores.tolist() == pytest.approx([s for s, _ in best], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_and_layout(dtype):
    index = LatentIndex(DIM)
    stored = vectors(4).to(dtype)
    index.add(stored.T.contiguous().T, torch.arange(4, dtype=torch.int32))
    scores, ids = index.search(stored.requires_grad_(), k=1)
    assert ids[:, 0].tolist() == [0, 1, 2, 3]
    assert scores[:, 0].tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_of_extreme_lengths(scale):
    index, ids = filled()
    scores, found = index.search(vectors(20) * scale, k=1)
    assert torch.equal(found[:, 0], ids)
    assert scores[:, 0].tolist() == pytest.approx([1.0] * 20)


def test_zero_vector_has_similarity_zero():
    index, _ = filled()
    scores, _ = index.search(torch.zeros(1, DIM), k=20)
    assert not scores.any()


def test_remove_and_add_again():
    index, ids = filled()
    index.remove(ids[[2, 7]])
    assert len(index) == 18
    assert index.ids.tolist() == [i for i in ids.tolist() if i not in ids[[2, 7]].tolist()]
    _, found = index.search(vectors(20)[[2]], k=18)
    assert int(ids[2]) not in found.tolist()[0]
    index.add(vectors(20)[[2]], ids[[2]])
    assert index.search(vectors(20)[[2]], k=1)[1].item() == int(ids[2])


def test_remove_of_an_absent_id_removes_nothing():
    index, ids = filled()
    with pytest.raises(KeyError, match="999 is not in the index"):
        index.remove(torch.tensor([int(ids[0]), 999]))
    assert len(index) == 20


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_saved_file_reads_back_and_is_plain_faiss(metric, tmp_path):
    index, _ = filled(metric)
    index.save(tmp_path / "classes.faiss")
    loaded = LatentIndex.load(tmp_path / "classes.faiss")
    assert (len(loaded), loaded.dim, loaded.metric) == (20, DIM, metric)
    queries = vectors(5, seed=2)
    for ours, theirs in zip(index.search(queries, 4), loaded.search(queries, 4), strict=True):
        assert torch.equal(ours, theirs)
    loaded.add(vectors(1), torch.tensor([1000]))
    plain = faiss.read_index(str(tmp_path / "classes.faiss"))
    lengths = np.linalg.norm(queries, axis=1, keepdims=True) if metric == "cosine" else 1
    _, plain_ids = plain.search(queries.numpy() / lengths, 4)
    assert np.array_equal(plain_ids, index.search(queries, 4)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["classes.faiss"]


def test_load_rejects_absent_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(FileNotFoundError, match="no index file"):
        LatentIndex.load(path)
    index, _ = filled()
    index.save(path)
    whole = path.read_bytes()
    for content in (b"", b"not an index at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable FAISS index"):
            LatentIndex.load(path)
    faiss.write_index(faiss.IndexFlatL2(3), str(path))
    with pytest.raises(ValueError, match="saved by LatentIndex"):
        LatentIndex.load(path)


@pytest.mark.parametrize(
    ("latents", "ids", "error", "message"),
    [
        (np.zeros((1, DIM)), [1], TypeError, "latents: expected a floating tensor, got ndarray"),
        (torch.zeros(1, DIM, dtype=torch.int64), [1], TypeError, "latents: .*got torch.int64"),
        (torch.zeros(1, 3), [1], ValueError, r"latents: expected \[rows, 7\], got \(1, 3\)"),
        (torch.full((1, DIM), torch.nan), [1], ValueError, "latents: expected finite"),
        (torch.zeros(2, DIM), [1], ValueError, "ids: expected one per latent"),
        (torch.zeros(2, DIM), [1, 1], ValueError, "ids: expected distinct"),
        (torch.zeros(1, DIM), [8], ValueError, "8 is in the index already"),
        (torch.zeros(1, DIM), [-1], ValueError, "ids: expected 0 or more, got -1"),
        (torch.zeros(1, DIM), [1.0], TypeError, "ids: expected an integer tensor"),
        (torch.zeros(1, DIM), [[1]], ValueError, "ids: expected a vector"),
    ],
)
def test_add_rejects(latents, ids, error, message):
    index, _ = filled()
    with pytest.raises(error, match=message):
        index.add(latents, torch.tensor(ids))
    assert len(index) == 20


@pytest.mark.parametrize("k", [0, 21])
def test_search_rejects_k(k):
    with pytest.raises(ValueError, match=f"k: expected 1 .. 20 .*got {k}"):
        filled()[0].search(vectors(1), k)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "dim: expected 1 or more"),
        ((2.0,), TypeError, "dim: expected an integer"),
        ((2, "dot"), ValueError, "metric: expected"),
    ],
)
def test_constructor_rejects(arguments, error, message):
    with pytest.raises(error, match=message):
        LatentIndex(*arguments)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        LatentIndex(3)
