import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from muxrec.errors import BundleError, DataError
from muxrec.index import NeighbourIndex, exact_search

DIM, COUNT = 16, 600


def unit_vectors(count=COUNT, dim=DIM, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors():
    return unit_vectors()


@pytest.fixture(scope="module")
def index(vectors):
    return NeighbourIndex.build(vectors, m=16, ef_construction=200, ef=64)


@pytest.fixture(scope="module")
def index_file(index, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "index.hnsw"
    index.save(path)
    return path


def load(path, **changes):
    return NeighbourIndex.load(path, **{"dim": DIM, "count": COUNT, "ef": 64, **changes})


def test_search_agrees_with_exact_search(index, vectors):
    positions, scores = index.search(vectors, 10)
    expected, expected_scores = exact_search(vectors, vectors, 10)
    overlap = [len({*a} & {*b}) / 10 for a, b in zip(positions, expected, strict=True)]
    assert np.mean(overlap) > 0.99  # an approximate index: m=16, ef=64 on 600 vectors
    assert positions.dtype == np.int64
    # hnswlib sums the products in another order than BLAS.
    np.testing.assert_allclose(scores[:, 0], expected_scores[:, 0], atol=1e-5)


def test_a_saved_index_answers_the_same_after_loading(index, index_file, vectors):
    loaded = load(index_file)
    for before, after in zip(index.search(vectors, 7), loaded.search(vectors, 7), strict=True):
        np.testing.assert_array_equal(before, after)


def test_building_twice_gives_the_same_bytes(index_file, vectors, tmp_path):
    NeighbourIndex.build(vectors, m=16, ef_construction=200).save(tmp_path / "again.hnsw")
    assert (tmp_path / "again.hnsw").read_bytes() == index_file.read_bytes()


def test_k_beyond_ef_is_answered_and_ef_is_restored(index_file, vectors):
    loaded = load(index_file, ef=5)
    before = loaded.search(vectors[:50], 5)
    assert loaded.search(vectors[:50], 500)[0].shape == (50, 500)
    for first, again in zip(before, loaded.search(vectors[:50], 5), strict=True):
        np.testing.assert_array_equal(first, again)


def test_exact_search_breaks_ties_by_position():
    vectors = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    positions, scores = exact_search(vectors[:1], vectors, 25)
    assert positions[0].tolist() == list(range(25))
    assert scores[0].tolist() == [1.0] * 20 + [0.0] * 5


def test_no_queries_give_empty_answers(index):
    positions, scores = index.search(np.empty((0, DIM), dtype=np.float32), 3)
    assert positions.shape == scores.shape == (0, 3)


BAD_QUERIES = {
    "narrow": lambda q: np.ascontiguousarray(q[:, :8]),
    "wide": lambda q: np.concatenate([q, q], axis=1),
    "one-dimensional": lambda q: q[0],
    "three-dimensional": lambda q: q[None],
    "float64": lambda q: q.astype(np.float64),
    "a list": lambda q: q.tolist(),
    "not contiguous": lambda q: np.asfortranarray(q),
    "NaN": lambda q: np.full_like(q, np.nan),
    "infinite": lambda q: np.full_like(q, np.inf),
    "no width": lambda q: q[:, :0],
}


@pytest.mark.parametrize("change", BAD_QUERIES.values(), ids=BAD_QUERIES)
@pytest.mark.parametrize("searcher", ["index", "exact"])
def test_a_bad_query_is_a_typed_error_and_the_index_lives_on(change, searcher, index, vectors):
    query = change(unit_vectors(4))
    with pytest.raises(DataError):
        index.search(query, 3) if searcher == "index" else exact_search(query, vectors, 3)
    assert index.search(vectors[:1], 1)[0].tolist() == [[0]]


@pytest.mark.parametrize("k", [0, -1, COUNT + 1, 10**12])
def test_k_out_of_range_is_a_typed_error(k, index, vectors):
    with pytest.raises(DataError, match=r"k must be in \[1, 600\]"):
        index.search(vectors[:1], k)
    with pytest.raises(DataError, match=r"k must be in \[1, 600\]"):
        exact_search(vectors[:1], vectors, k)


def test_every_item_can_be_asked_for(index, vectors):
    positions, _ = index.search(vectors[:3], COUNT)
    assert [sorted(row) for row in positions.tolist()] == [list(range(COUNT))] * 3


@pytest.mark.parametrize(
    "vectors",
    [np.empty((0, 4), np.float32), np.full((3, 4), np.nan, np.float32)],
    ids=["none", "nan"],
)
def test_what_cannot_be_indexed_is_refused(vectors):
    with pytest.raises(DataError):
        NeighbourIndex.build(vectors, m=16, ef_construction=50)


@pytest.mark.parametrize("dim", [8, 15, 17, 32])
def test_a_file_of_another_width_is_refused(dim, index_file):
    with pytest.raises(BundleError):
        load(index_file, dim=dim)


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1])
def test_a_file_of_another_count_is_refused(count, index_file):
    with pytest.raises(BundleError, match="holds 600"):
        load(index_file, count=count)


@pytest.mark.parametrize("keep", [0, 1, 50, 96, 4000, -1])
def test_a_cut_file_is_refused(keep, index_file, tmp_path):
    cut = tmp_path / "cut.hnsw"
    cut.write_bytes(index_file.read_bytes()[:keep])
    with pytest.raises(BundleError):
        load(cut)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match="missing"):
        load(tmp_path / "nowhere.hnsw")


def test_saving_into_a_missing_folder_is_an_error(index, tmp_path):
    with pytest.raises(BundleError):
        index.save(tmp_path / "missing" / "index.hnsw")


def test_a_full_disk_keeps_the_old_file(index, index_file, tmp_path):
    path = tmp_path / "index.hnsw"
    path.write_bytes(index_file.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(BundleError, match="disk full"):
            index.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == index_file.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.hnsw"]


SAVE_FOR_EVER = """
import sys
from pathlib import Path
from muxrec.index import NeighbourIndex
source, target = map(Path, sys.argv[1:])
index = NeighbourIndex.load(source, dim=16, count=600, ef=64)
print("ready", flush=True)
while True:
    index.save(target)
"""


def test_kill_while_saving_leaves_a_whole_file(index_file, tmp_path):
    target = tmp_path / "index.hnsw"
    rng = np.random.default_rng(0)
    for _ in range(5):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(index_file), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.02 + rng.random() / 10)
            child.kill()
        if target.exists():
            load(target).search(unit_vectors(8), 5)
    assert target.exists()
