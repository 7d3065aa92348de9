"""An index used by several threads at once, and its copies."""

import copy
import pickle
import threading

import pytest
import torch

from mcfa_fast.search import LatentIndex
from mcfa_fast.search.locks import SharedLock

DIM, ROWS = 16, 1500
KINDS = ("flat", "ivf", "hnsw")
VECTORS = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.usefixtures("one_thread")


def filled(kind, rows=ROWS, **options):
    index = LatentIndex(DIM, kind=kind, **options)
    index.add(VECTORS[:rows], torch.arange(rows))
    return index


def in_threads(*works):
    """Runs all at the same moment; the first error is raised here."""
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the threads wait for each other"
    for error in errors:
        raise error


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_search_of_eight_threads_builds_once(kind):
    wanted = filled(kind).search(VECTORS[:30], 5)
    for _ in range(5):
        index, found = filled(kind), []

        def search(index=index, found=found):
            found.append(index.search(VECTORS[:30], 5))

        in_threads(*[search] * 8)
        assert torch.equal(index.ids, torch.arange(ROWS))
        assert len(found) == 8
        for scores, ids in found:
            assert torch.equal(ids, wanted[1]) and torch.equal(scores, wanted[0])


@pytest.mark.parametrize("kind", KINDS)
def test_searches_beside_changes(kind):
    """What is always there is always found, and what is gone is not found afterwards."""
    index = filled(kind, rows=500)
    everything = 10**4 if kind != "flat" else None

    def search():
        for _ in range(15):
            scores, ids = index.search(VECTORS[:20], 1, effort=everything)
            assert torch.equal(ids[:, 0], torch.arange(20))
            assert torch.isfinite(scores).all()
            scores, columns = index.scores(VECTORS[:20])
            assert scores.shape == (20, len(columns)) and torch.equal(columns, columns.unique())

    def change(start):
        for first in range(start, start + 250, 50):
            rows = torch.arange(first, first + 50)
            index.add(VECTORS[rows], rows)
            index.remove(rows[:25])

    in_threads(search, search, search, *(lambda s=s: change(s) for s in (500, 750, 1000, 1250)))
    rows = torch.arange(500, 1500)
    wanted = torch.cat([torch.arange(500), rows[(rows % 50) >= 25]])
    assert torch.equal(index.ids.sort().values, wanted)
    found = index.search(VECTORS[wanted], 1, effort=everything)[1][:, 0]
    assert (found == wanted).float().mean() > 0.995


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_is_added_once_by_threads_that_race(kind):
    index, refused = filled(kind, rows=10), []

    def add():
        try:
            index.add(VECTORS[10:20], torch.arange(10, 20))
        except ValueError as error:
            refused.append(str(error))

    in_threads(*[add] * 6)
    assert torch.equal(index.ids, torch.arange(20))
    assert len(refused) == 5 and all("10 is in the index already" in text for text in refused)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_are_the_same_and_independent(copied, kind, metric, built):
    index = filled(kind, metric=metric, **({} if kind == "flat" else {"effort": 7}))
    if built:
        index.build()
        index.remove(torch.arange(100, 130))
    other = copied(index)
    assert (other.kind, other.metric, other.dim) == (kind, metric, DIM)
    assert torch.equal(other.ids, index.ids)
    queries = VECTORS[::10]
    for ours, theirs in zip(index.search(queries, 4), other.search(queries, 4), strict=True):
        assert torch.equal(ours, theirs)
    other.remove(torch.arange(50))
    index.add(VECTORS[:1], torch.tensor([ROWS]))
    assert len(index) - len(other) == 51
    assert index.search(VECTORS[:1], 1)[1].item() in (0, ROWS)
    assert other.search(VECTORS[:1], 1)[1].item() >= 50


def test_copies_take_only_what_is_there():
    index = LatentIndex(DIM)
    for row in range(65):  # there is room for 128
        index.add(VECTORS[row : row + 1], torch.tensor([row]))
    index.build()
    assert len(pickle.dumps(index)) < 1.5 * 65 * DIM * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e19, 3e19, 3e38])
def test_vectors_whose_squares_overflow_are_refused(kind, scale):
    index = LatentIndex(DIM, "l2", kind)
    index.add(VECTORS[:100], torch.arange(100))
    for use in (
        lambda: index.add(VECTORS[:5] * scale, torch.arange(200, 205)),
        lambda: index.search(VECTORS[:2] * scale, 1),
        lambda: index.scores(VECTORS[:2] * scale),
    ):
        with pytest.raises(ValueError, match="(latents|queries): expected .*(4.6e.18|finite)"):
            use()
    assert len(index) == 100


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_vectors_have_finite_distances(kind):
    index = LatentIndex(DIM, "l2", kind)
    unit = torch.nn.functional.normalize(VECTORS[:200], dim=1)
    index.add(unit * 4.6e18, torch.arange(200))
    queries = torch.cat([unit[:5], -unit[:5]]) * 4.6e18
    scores, ids = index.search(queries, 200)
    assert torch.isfinite(scores).all()
    assert torch.equal(ids[:5, 0], torch.arange(5)) and torch.equal(ids[5:, -1], torch.arange(5))


def test_readers_share_and_writers_are_alone():
    lock, together, log = SharedLock(), threading.Barrier(2, timeout=30), []

    def read():
        with lock.shared():
            together.wait()  # passes only if both are inside

    in_threads(read, read)

    def write():
        with lock.alone():
            log.append("begins")
            log.append("ends")

    in_threads(*[write] * 8)
    assert log == ["begins", "ends"] * 8
    with pytest.raises(RuntimeError, match="inside"), lock.alone():
        raise RuntimeError("inside")
    in_threads(write)  # it was released


def test_a_writer_that_waits_goes_before_later_readers():
    lock, order = SharedLock(), []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with lock.shared():
            inside.set()
            leave.wait(30)

    def writer():
        with lock.alone():
            order.append("writer")

    def later():
        with lock.shared():
            order.append("reader")

    threads = [threading.Thread(target=work) for work in (first, writer, later)]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    while not lock._waiting:
        pass
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["writer", "reader"]
