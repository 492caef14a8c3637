from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from muxrec.errors import DataError
from muxrec.evaluation.metrics import evaluate_scores, evaluate_vectors, rank_metrics
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.scoring import NEVER, SparseScorer, score_blocks, unit_rows, vector_scorer


def relevance_of(lists: dict[int, list[int]]) -> Relevance:
    sizes = [len(items) for items in lists.values()]
    flat = [item for items in lists.values() for item in items]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Relevance(np.array(list(lists), np.int64), offsets, np.array(flat, np.int64))


class Fixed:
    """Scores given outright."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)
        self.count = self.scores.shape[1]

    def __call__(self, queries):
        return self.scores[queries]


def brute_force(scores: np.ndarray, query: int, relevant: list[int], k: int) -> tuple[float, ...]:
    """The definition, by sorting python tuples: worse first among equals, the query left out."""
    ranking = sorted(
        (i for i in range(scores.size) if i != query), key=lambda i: (-scores[i], i in relevant, i)
    )
    top = [i in relevant for i in ranking[:k]]
    most = min(k, len(relevant))
    dcg = sum(hit / np.log2(at + 2) for at, hit in enumerate(top))
    ideal = sum(1 / np.log2(at + 2) for at in range(most))
    first = next(at for at, item in enumerate(ranking, 1) if item in relevant)
    return sum(top) / most, dcg / ideal, 1 / first


def test_a_hand_example_gives_the_numbers_worked_out_on_paper():
    scores = Fixed([[9, 5, 4, 3, 2, 1]])
    result = evaluate_scores(scores, relevance_of({0: [2, 5, 4]}), ks=(2, 5))
    assert list(result.ranks) == [2, 5, 4]
    assert result.mean("recall_at_2") == pytest.approx(1 / 2)
    assert result.mean("recall_at_5") == pytest.approx(3 / 3)
    assert result.mean("mrr") == pytest.approx(1 / 2)
    ideal = 1 + 1 / np.log2(3)
    assert result.mean("ndcg_at_2") == pytest.approx((1 / np.log2(3)) / ideal)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_brute_force_ties_included(seed):
    rng = np.random.default_rng(seed)
    count = 40
    scores = rng.integers(0, 8, size=(count, count)).astype(np.float32)
    lists = {}
    for query in range(0, count, 2):
        others = np.setdiff1d(np.arange(count), [query])
        lists[query] = [int(i) for i in rng.choice(others, size=rng.integers(1, 15), replace=False)]
    result = evaluate_scores(Fixed(scores), relevance_of(lists), ks=(1, 10))
    for at, (query, relevant) in enumerate(lists.items()):
        for k in (1, 10):
            recall, ndcg, mrr = brute_force(scores[query], query, relevant, k)
            assert result.metrics[f"recall_at_{k}"][at] == pytest.approx(recall)
            assert result.metrics[f"ndcg_at_{k}"][at] == pytest.approx(ndcg)
            assert result.metrics["mrr"][at] == pytest.approx(mrr)


def test_ndcg_agrees_with_sklearn_when_at_most_k_items_are_relevant():
    rng = np.random.default_rng(1)
    scores = rng.permuted(np.tile(np.arange(30.0), (30, 1)), axis=1)
    lists = {q: [int((q + s) % 30) for s in (1, 5, 9)] for q in range(30)}
    result = evaluate_scores(Fixed(scores), relevance_of(lists), ks=(10,))
    for query, relevant in lists.items():
        others = np.setdiff1d(np.arange(30), [query])
        truth = np.isin(others, relevant)[None].astype(float)
        expected = ndcg_score(truth, scores[query][others][None], k=10)
        assert result.metrics["ndcg_at_10"][query] == pytest.approx(expected)


def test_planted_clusters_are_found_completely():
    rng = np.random.default_rng(2)
    centres = unit_rows(rng.normal(size=(8, 32)))
    cluster = np.arange(80) % 8
    vectors = unit_rows(centres[cluster] + 0.02 * rng.normal(size=(80, 32)))
    lists = {
        q: [int(i) for i in np.flatnonzero(cluster == cluster[q]) if i != q] for q in range(80)
    }
    result = evaluate_vectors(vectors, relevance_of(lists), ks=(9,))
    assert result.means == {"recall_at_9": 1.0, "ndcg_at_9": 1.0, "mrr": 1.0}


def test_all_equal_vectors_find_nothing_wherever_the_relevant_items_lie():
    vectors = np.tile(unit_rows(np.random.default_rng(3).normal(size=(1, 24))), (500, 1))
    for first in (1, 250, 490):
        truth = relevance_of({0: list(range(first, first + 5))})
        result = evaluate_vectors(vectors, truth, ks=(10, 100))
        assert result.mean("recall_at_100") == 0.0
        assert list(result.ranks) == list(range(495, 500))


def test_equal_vectors_tie_bit_for_bit_at_every_block_size():
    rng = np.random.default_rng(4)
    distinct = unit_rows(rng.normal(size=(37, 19)))
    which = rng.integers(0, 37, size=301)
    scorer = vector_scorer(distinct[which])
    for block_bytes in (1, 301 * 4 * 7, 2**20):
        for start, scores in score_blocks(scorer, np.arange(301), block_bytes=block_bytes):
            for row, own in enumerate(scores, start):
                for value in range(37):
                    same = own[(which == value) & (np.arange(301) != row)]
                    assert np.unique(same).size <= 1


def test_negative_zero_is_the_same_vector_as_zero():
    vectors = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    assert len(vector_scorer(vectors).distinct) == 2


def test_the_query_itself_is_not_a_candidate():
    vectors = unit_rows(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    result = evaluate_vectors(vectors, relevance_of({0: [1]}), ks=(1,))
    assert result.mean("recall_at_1") == 1.0


def test_a_query_without_relevant_items_is_not_counted():
    result = evaluate_scores(Fixed(np.eye(4)[::-1]), relevance_of({0: [3], 1: []}), ks=(1,))
    assert np.isnan(result.metrics["recall_at_1"][1])
    assert np.isnan(result.metrics["mrr"][1])
    assert result.mean("recall_at_1") == 1.0


def test_no_queries_give_nan_and_no_error():
    result = evaluate_vectors(np.eye(3), relevance_of({}), ks=(10,))
    assert np.isnan(result.mean("recall_at_10"))


def test_items_that_are_never_recommended_are_no_hits_even_when_the_cut_off_covers_all():
    scores = Fixed([[NEVER, 1, NEVER, NEVER]])
    result = evaluate_scores(scores, relevance_of({0: [1, 2]}), ks=(10,))
    assert list(result.ranks) == [1, 0]
    assert result.mean("recall_at_10") == 0.5


def test_items_without_a_vector_are_never_recommended():
    present = np.array([True, False, True])
    result = evaluate_scores(
        vector_scorer(np.ones((3, 2)), present), relevance_of({0: [1, 2], 1: [2]}), ks=(10,)
    )
    assert list(result.ranks) == [0, 1, 0]


def test_an_item_with_a_vector_of_zeros_is_not_put_before_those_that_point_away():
    vectors = unit_rows(np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.2], [0.0, 0.0]]))
    result = evaluate_vectors(vectors, relevance_of({0: [1, 2], 1: [0]}), ks=(1,))
    assert list(result.ranks) == [0, 1, 0]


def test_sparse_scores_rank_like_their_dense_form():
    import scipy.sparse as sp

    rng = np.random.default_rng(6)
    dense = rng.random((20, 20)) * (rng.random((20, 20)) < 0.4)
    lists = {q: [(q + 1) % 20, (q + 7) % 20] for q in range(20)}
    sparse = evaluate_scores(SparseScorer(sp.csr_array(dense)), relevance_of(lists), ks=(5,))
    filled = np.where(dense > 0, dense, NEVER)
    assert np.array_equal(
        sparse.ranks, evaluate_scores(Fixed(filled), relevance_of(lists), ks=(5,)).ranks
    )


def test_block_size_changes_no_rank():
    rng = np.random.default_rng(7)
    scores = Fixed(rng.random((50, 50)))
    blocks = [score_blocks(scores, np.arange(50), block_bytes=b) for b in (1, 50 * 4 * 3, 2**20)]
    joined = [np.concatenate([scores for _, scores in block]) for block in blocks]
    assert np.array_equal(joined[0], joined[1])
    assert np.array_equal(joined[0], joined[2])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((3, 2), np.nan), "3 of 3 vectors hold numbers that are not finite"),
        (np.zeros(3), r"shape \[items, width\], got \[3\]"),
    ],
)
def test_wrong_vectors_are_refused_with_the_reason(vectors, message):
    with pytest.raises(DataError, match=message):
        evaluate_vectors(vectors, relevance_of({0: [1]}), ks=(1,))


def test_wrong_scores_and_relevance_are_refused_with_the_reason():
    nan = Fixed([[0, np.nan, 1]])
    with pytest.raises(DataError, match="query 0 hold NaN"):
        evaluate_scores(nan, relevance_of({0: [1]}), ks=(1,))
    with pytest.raises(DataError, match="different catalogues"):
        evaluate_vectors(np.eye(3), relevance_of({0: [7]}), ks=(1,))
    with pytest.raises(DataError, match="relevant to themselves"):
        evaluate_vectors(np.eye(3), relevance_of({0: [0]}), ks=(1,))
    with pytest.raises(ValueError, match="at least 1"):
        rank_metrics(np.array([1]), np.array([0, 1]), ks=(0,))
