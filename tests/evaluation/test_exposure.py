from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from muxrec.evaluation.exposure import measure_exposure, skewness, top_lists
from muxrec.evaluation.scoring import SparseScorer, unit_rows, vector_scorer


class Same:
    """The same scores for every query."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float32)
        self.count = self.scores.size

    def __call__(self, queries):
        return np.tile(self.scores, (len(queries), 1))


def test_lists_hold_the_best_items_without_the_query_ties_by_position():
    lists = top_lists(Same([1, 5, 5, -2, 5]), np.array([0, 1]), k=3)
    assert lists.tolist() == [[1, 2, 4], [2, 4, 0]]


def test_lists_agree_with_a_full_stable_sort_over_both_signs_and_zeros():
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 4, size=(60, 60)).astype(np.float32) * np.float32(0.37)
    scores[rng.random((60, 60)) < 0.1] = -0.0

    class Table:
        count = 60

        def __call__(self, queries):
            return scores[queries]

    lists = top_lists(Table(), np.arange(60), k=12)
    for query in range(60):
        order = sorted((i for i in range(60) if i != query), key=lambda i: (-scores[query, i], i))
        assert lists[query].tolist() == order[:12]


def test_short_lists_are_filled_with_minus_one():
    scorer = SparseScorer(sp.csr_array(np.array([[0, 2.0, 0], [0, 0, 0], [0, 0, 0]])))
    assert top_lists(scorer, np.array([0, 1]), k=5).tolist() == [[1] + [-1] * 4, [-1] * 5]


def test_the_same_list_for_everybody_covers_almost_nothing_and_is_all_hubs():
    found = measure_exposure(Same(np.arange(200)), np.arange(200))
    assert found.coverage == pytest.approx(11 / 200)
    assert found.hub_skew > 3
    assert found.popular_share == 1.0


def test_a_ring_covers_everything_and_has_no_hub():
    angle = 2 * np.pi * np.arange(120) / 120
    ring = unit_rows(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    found = measure_exposure(vector_scorer(ring), np.zeros(120, dtype=np.int64))
    assert found.coverage == 1.0
    # Rounding of the cosine moves a few list ends by one place.
    assert abs(found.hub_skew) < 1.5
    assert found.shown.sum() == 1200


def test_items_never_shown_count_in_the_skewness():
    assert skewness(np.array([0] * 99 + [10])) > 9
    assert skewness(np.array([4, 4, 4])) == 0.0


def test_a_large_catalogue_is_sampled_and_the_sample_is_fixed():
    vectors = unit_rows(np.random.default_rng(3).normal(size=(300, 8)))
    popularity = np.arange(300)
    first, second = (
        measure_exposure(vector_scorer(vectors), popularity, max_queries=50) for _ in range(2)
    )
    assert first.shown.sum() == 500
    assert np.array_equal(first.shown, second.shown)
