"""Inverted lists and graph: what they find, how they grow and shrink, and their files."""

import faiss
import pytest
import torch

from mcfa_fast.search import LatentIndex

DIM, ROWS, K = 16, 2000, 5
KINDS = ("ivf", "hnsw")

pytestmark = pytest.mark.usefixtures("one_thread")


def clusters(rows=ROWS, seed=0):
    """One centre for every fifty vectors."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(rows // 50, DIM, generator=generator)
    noise = torch.randn(rows, DIM, generator=generator)
    return centres.repeat(50, 1) + 1.2 * noise


VECTORS = clusters()
QUERIES = VECTORS[::20] + 0.1


@pytest.fixture(params=["cosine", "l2"])
def metric(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def filled(kind, metric="cosine", rows=ROWS, **options):
    index = LatentIndex(DIM, metric, kind, **options)
    index.add(VECTORS[:rows], torch.arange(rows))
    return index


def recall(index, wanted, effort=None):
    found = index.search(QUERIES, K, effort=effort)[1]
    return (found[:, :, None] == wanted[:, None, :]).any(dim=1).float().mean().item()


def test_recall_by_default_and_with_more_and_less_effort(kind, metric):
    wanted = filled("flat", metric).search(QUERIES, K)[1]
    index = filled(kind, metric)
    default, least, most = (recall(index, wanted, effort) for effort in (None, 1, ROWS))
    assert default >= 0.95
    assert most >= 0.999
    assert least < default


def test_effort_of_the_index_is_its_default(kind):
    index = filled(kind, effort=2)
    assert torch.equal(index.search(QUERIES, K)[1], filled(kind).search(QUERIES, K, effort=2)[1])


def test_size_is_obeyed(kind):
    index = filled(kind, size=7)
    index.build()
    built = index._store._index
    links = None if kind == "ivf" else faiss.downcast_index(built.index).hnsw.nb_neighbors(1)
    assert (built.nlist if kind == "ivf" else links) == 7


def test_lists_follow_the_number_of_vectors():
    index = filled("ivf")
    index.build()
    assert index._store._index.nlist == ROWS // 39  # fewer than 4·sqrt(M), which is 179
    few = filled("ivf", rows=30)
    few.build()
    assert few._store._index.nlist == 1
    few.add(VECTORS[30:], torch.arange(30, ROWS))  # more than four times as many
    few.build()
    assert few._store._index.nlist == ROWS // 39


def test_vectors_added_later_are_found(kind, metric):
    index = filled(kind, metric, rows=ROWS // 2)
    index.search(QUERIES, K)
    for start in range(ROWS // 2, ROWS, 500):
        index.add(VECTORS[start : start + 500], torch.arange(start, start + 500))
        index.search(QUERIES, K)
    assert index.ids.tolist() == list(range(ROWS))
    wanted = filled("flat", metric).search(QUERIES, K)[1]
    assert recall(index, wanted, effort=ROWS) >= 0.999


@pytest.mark.parametrize("share", [0.3, 0.9])  # a graph is built anew from a half on
def test_removed_vectors_are_never_returned(kind, metric, share):
    index, flat = filled(kind, metric), filled("flat", metric)
    index.search(QUERIES, K)
    gone = torch.arange(int(share * ROWS))[torch.randperm(int(share * ROWS))]
    for one in (index, flat):
        one.remove(gone)
    assert len(index) == ROWS - len(gone) == len(index.ids)
    scores, found = index.search(QUERIES, K, effort=ROWS)
    assert not torch.isin(found, gone).any()
    wanted_scores, wanted = flat.search(QUERIES, K)
    assert recall(index, wanted, effort=ROWS) >= 0.999
    same = (found == wanted).all(dim=1)
    torch.testing.assert_close(scores[same], wanted_scores[same], atol=1e-3, rtol=1e-4)
    index.add(VECTORS[gone], gone)
    assert recall(index, filled("flat", metric).search(QUERIES, K)[1], effort=ROWS) >= 0.999


def test_too_little_effort_still_gives_k_ids(kind):
    """With one list or candidate, fewer than k vectors are met."""
    index = filled(kind)
    scores, ids = index.search(QUERIES[:3], k=ROWS - 1, effort=1)
    assert (ids >= 0).all() and torch.isfinite(scores).all()
    assert all(len(set(row)) == ROWS - 1 for row in ids.tolist())


def test_scores_are_exact(kind, metric):
    wanted, ids = filled("flat", metric).scores(QUERIES[:5])
    scores, columns = filled(kind, metric).scores(QUERIES[:5])
    assert torch.equal(columns, ids)
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("removed", [False, True])
def test_saved_file_reads_back(kind, metric, removed, tmp_path):
    index = filled(kind, metric, effort=9)
    if removed:
        index.search(QUERIES, K)
        index.remove(torch.arange(100))
    index.save(tmp_path / "index")
    loaded = LatentIndex.load(tmp_path / "index")
    assert (loaded.kind, loaded.metric, loaded.dim) == (kind, metric, DIM)
    assert sorted(loaded.ids.tolist()) == sorted(index.ids.tolist())
    for ours, theirs in zip(index.search(QUERIES, K), loaded.search(QUERIES, K), strict=True):
        assert torch.equal(ours, theirs)
    loaded.add(VECTORS[:1], torch.tensor([ROWS + 5]))
    loaded.remove(torch.tensor([ROWS - 1]))
    assert len(loaded) == len(index)
    plain = faiss.read_index(str(tmp_path / "index"))
    assert plain.ntotal == ROWS - (100 if removed and kind == "ivf" else 0)


def test_empty_index_round_trips(kind, tmp_path):
    LatentIndex(DIM, kind=kind).save(tmp_path / "index")
    loaded = LatentIndex.load(tmp_path / "index")
    assert len(loaded) == 0
    loaded.add(VECTORS[:3], torch.arange(3))
    assert loaded.search(VECTORS[:3], 1)[1][:, 0].tolist() == [0, 1, 2]


def test_load_rejects_damaged_files(kind, tmp_path):
    path = tmp_path / "index"
    filled(kind, rows=100).save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), len(whole) // 50):
        content = bytearray(whole)
        content[position] ^= 0x40
        for damaged in (content, whole[:position]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged"):
                LatentIndex.load(path)


@pytest.mark.parametrize("effort", [0, -3])
def test_search_rejects_effort(kind, effort):
    with pytest.raises(ValueError, match=f"effort: expected 1 or more .* got {effort}"):
        filled(kind, rows=50).search(QUERIES, K, effort=effort)


def test_flat_has_no_effort():
    with pytest.raises(ValueError, match="effort: expected .* for 'ivf' and 'hnsw'"):
        filled("flat").search(QUERIES, K, effort=3)


def test_graphs_stay_on_the_cpu():
    with pytest.raises(ValueError, match="graphs on the CPU only, got cuda"):
        filled("hnsw").to("cuda")


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="FAISS has GPU support")
def test_lists_on_a_gpu_need_the_gpu_build():
    index = filled("ivf").to("cuda")
    with pytest.raises(ImportError, match="GPU build of FAISS"):
        index.search(QUERIES, K)
