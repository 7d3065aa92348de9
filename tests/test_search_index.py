"""The index against distances computed pair by pair, and its file against FAISS itself."""

import hashlib
import sys

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcfa_fast import _extras
from mcfa_fast.search import LatentIndex
from mcfa_fast.search.faiss_module import find_faiss

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


def saved(index, path):
    """A file with the right checksum around any FAISS index."""
    content = faiss.serialize_index(index).tobytes()
    digest = hashlib.blake2b(content, digest_size=32).digest()
    path.write_bytes(content + b"mcfa_fast index" + digest)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda: faiss.IndexFlatL2(3),
        lambda: faiss.IndexIDMap2(faiss.IndexPQ(8, 2, 4)),
        lambda: faiss.IndexIDMap(faiss.IndexLSH(8, 16)),
        lambda: faiss.IndexIVFPQ(faiss.IndexFlatL2(8), 8, 4, 2, 4),
    ],
)
def test_load_rejects_other_kinds_of_index(make, tmp_path):
    path = saved(make(), tmp_path / "index")
    with pytest.raises(ValueError, match="not an index that LatentIndex saves"):
        LatentIndex.load(path)


def test_load_rejects_what_faiss_rejects(tmp_path):
    path = tmp_path / "index"
    content = faiss.serialize_index(faiss.IndexIDMap2(faiss.IndexFlatIP(3))).tobytes()[:-9]
    digest = hashlib.blake2b(content, digest_size=32).digest()
    path.write_bytes(content + b"mcfa_fast index" + digest)
    with pytest.raises(ValueError, match="not an index that LatentIndex saves"):
        LatentIndex.load(path)


def test_load_rejects_absent_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "index"
    with pytest.raises(FileNotFoundError, match="no index file"):
        LatentIndex.load(path)
    index, _ = filled()
    index.save(path)
    whole = path.read_bytes()
    for content in (b"", b"not an index at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            LatentIndex.load(path)
    for position in range(0, len(whole), 29):
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
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
        ({"dim": 0}, ValueError, "dim: expected 1 or more"),
        ({"dim": 2.0}, TypeError, "dim: expected an integer"),
        ({"dim": 2, "metric": "dot"}, ValueError, "metric: expected"),
        ({"dim": 2, "kind": "tree"}, ValueError, "kind: expected"),
        ({"dim": 2, "effort": 4}, ValueError, "of kind 'flat' has none"),
        ({"dim": 2, "kind": "ivf", "effort": 0}, ValueError, "effort: expected 1 or more, got 0"),
        ({"dim": 2, "kind": "hnsw", "size": 1.5}, TypeError, "size: expected an integer"),
    ],
)
def test_constructor_rejects(arguments, error, message):
    with pytest.raises(error, match=message):
        LatentIndex(**arguments)


@pytest.fixture
def without_faiss(monkeypatch):
    """As if FAISS were not installed."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    find_faiss.cache_clear()
    yield
    find_faiss.cache_clear()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("rows", [1, 4, 200])
def test_exact_search_is_the_same_without_faiss(metric, rows, request):
    queries = vectors(rows, seed=1)
    wanted = filled(metric)[0].search(queries, k=6)
    request.getfixturevalue("without_faiss")
    scores, ids = filled(metric)[0].search(queries, k=6)
    assert torch.equal(ids, wanted[1])
    torch.testing.assert_close(scores, wanted[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: LatentIndex(3, kind="ivf"),
        lambda path: LatentIndex(3, kind="hnsw"),
        lambda path: LatentIndex(3).save(path / "index"),
        lambda path: LatentIndex.load(path / "index"),
    ],
)
def test_without_faiss_the_error_says_what_to_install(use, without_faiss, tmp_path):
    with pytest.raises(
        _extras.MissingExtraError, match=r"index: faiss .* pip install 'mcfa_fast\[index\]'"
    ):
        use(tmp_path)


def test_faiss_that_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "faiss.py").write_text("raise ImportError('libgomp.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faiss")
    find_faiss.cache_clear()
    try:
        assert find_faiss() is None
        with pytest.raises(ImportError, match=r"libgomp\.so\.1: cannot open"):
            LatentIndex(3, kind="ivf")
        index = LatentIndex(DIM)
        index.add(vectors(1), torch.tensor([4]))
        assert index.search(vectors(1), 1)[1].item() == 4
    finally:
        find_faiss.cache_clear()


def test_float32_queries_are_not_copied(monkeypatch):
    """What the search works on is the caller's own memory."""
    index, _ = filled()
    seen = []
    search = index._store.search
    monkeypatch.setattr(
        index._store,
        "search",
        lambda queries, *rest: seen.append(queries) or search(queries, *rest),
    )
    queries = vectors(9, seed=4)
    index.search(queries, 2)
    assert seen[0].data_ptr() == queries.data_ptr()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_scores_are_those_of_every_pair(metric):
    index, ids = filled(metric)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    shuffled = LatentIndex(DIM, metric)
    shuffled.add(vectors(20)[order], ids[order])
    queries = vectors(5, seed=1)
    for one in (index, shuffled):
        scores, columns = one.scores(queries)
        assert torch.equal(columns, ids)
        wanted = [[similarity(q, v, metric) for v in vectors(20)] for q in queries]
        torch.testing.assert_close(scores, torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def reference(stored, query, k, metric):
    """Best score of every id, by a loop: [(score, id)], best first, and none twice."""
    best = {}
    for vector, key in stored:
        score = similarity(query, vector, metric)
        worse = max if metric == "cosine" else min
        best[key] = worse(best.get(key, score), score)
    return sorted(((s, i) for i, s in best.items()), reverse=metric == "cosine")[:k]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_sequence_of_changes_equals_brute_force(metric, kind, data):
    """Adding, adding to ids and removing, then searching with the effort that misses nothing."""
    effort = None if kind == "flat" else 1000
    index, stored = LatentIndex(DIM, metric, kind), []
    for step in range(data.draw(st.integers(1, 5), label="steps")):
        present = sorted({key for _, key in stored})
        if present and data.draw(st.booleans(), label="remove"):
            gone = data.draw(st.sets(st.sampled_from(present)), label="gone")
            index.remove(torch.tensor(sorted(gone), dtype=torch.int64))
            stored = [(vector, key) for vector, key in stored if key not in gone]
        else:
            keys = data.draw(st.lists(st.integers(0, 12), max_size=25), label="keys")
            new = vectors(len(keys), seed=step)
            index.add(new, torch.tensor(keys, dtype=torch.int64), several=True)
            stored += zip(new, keys, strict=True)
        different = {key for _, key in stored}
        assert len(index) == len(different)
        assert sorted(index.ids.tolist()) == sorted(key for _, key in stored)
        if not different:
            continue
        k = data.draw(st.integers(1, len(different)), label="k")
        queries = vectors(3, seed=100)
        scores, ids = index.search(queries, k, effort=effort)
        for query, row_scores, row_ids in zip(queries, scores, ids, strict=True):
            wanted = reference(stored, query, k, metric)
            assert row_ids.tolist() == [i for _, i in wanted]
            assert row_scores.tolist() == pytest.approx([s for s, _ in wanted], abs=1e-4)


def test_several_vectors_of_an_id_need_the_flag():
    index, ids = filled()
    with pytest.raises(ValueError, match="is in the index already"):
        index.add(vectors(1), ids[:1])
    index.add(vectors(2, seed=8), ids[[0, 0]], several=True)
    assert len(index) == 20 and len(index.ids) == 22
    scores, _ = index.scores(vectors(2, seed=8))
    assert scores[:, 0].tolist() == pytest.approx([1.0, 1.0])
    index.remove(ids[:1])
    assert len(index) == 19 and int(ids[0]) not in index.ids


def test_large_k_of_an_id_with_most_vectors():
    """All but one of 300 vectors belong to one id: the rest is found nevertheless."""
    index = LatentIndex(DIM)
    index.add(
        vectors(1).expand(300, DIM) + 0.01 * vectors(300, seed=1),
        torch.zeros(300).long(),
        several=True,
    )
    index.add(-vectors(1), torch.tensor([1]))
    assert index.search(vectors(1), k=2)[1].tolist() == [[0, 1]]
