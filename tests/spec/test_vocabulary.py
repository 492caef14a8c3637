"""Exact id-to-row maps."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from muxrec.spec.vocabulary import EMPTY, build_vocabulary

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200)


@given(IDS, IDS)
@example([0], [])
@example([], [0, 1])
@example([-(2**63), 2**63 - 1, 0], [1])
def test_known_ids_get_their_rank_and_all_others_none(known: list[int], others: list[int]) -> None:
    vocabulary = build_vocabulary("item", known)
    falling = sorted(Counter(known).items(), key=lambda pair: (-pair[1], pair[0]))
    ranks = {number: rank for rank, (number, _) in enumerate(falling)}
    wanted = [*known, *others]
    expected = [ranks.get(number, EMPTY) for number in wanted]
    assert vocabulary.lookup(np.array(wanted, dtype=np.int64)).tolist() == expected
    assert vocabulary.size == len(ranks)
    assert vocabulary.ids().tolist() == list(ranks)
    assert vocabulary.counts.tolist() == [count for _, count in falling]


def test_the_order_of_the_input_does_not_matter() -> None:
    ids = np.random.default_rng(0).integers(-(10**9), 10**9, size=5000)
    first, second = build_vocabulary("item", ids), build_vocabulary("item", ids[::-1])
    np.testing.assert_array_equal(first.keys, second.keys)
    np.testing.assert_array_equal(first.rows, second.rows)


def test_buckets_stay_short_at_a_hundred_thousand_ids() -> None:
    vocabulary = build_vocabulary("item", np.arange(100_000))
    # Two ids per bucket on average: a Poisson maximum of 50,000 buckets lies near 10.
    assert vocabulary.longest <= 14
    assert vocabulary.lookup_bytes <= 15 * 100_000
    np.testing.assert_array_equal(vocabulary.lookup(np.arange(100_000)), np.arange(100_000))


def test_a_lookup_keeps_the_shape() -> None:
    vocabulary = build_vocabulary("item", [5, 6])
    assert vocabulary.lookup(np.array([[5, 7, 6], [6, 6, 5]])).tolist() == [[0, -1, 1], [1, 1, 0]]


def test_the_head_keeps_the_rows_of_the_most_frequent_ids() -> None:
    vocabulary = build_vocabulary("item", [7, 8, 9], counts=[1, 5, 3])
    assert vocabulary.ids().tolist() == [8, 9, 7]
    assert vocabulary.head(2).lookup([7, 8, 9]).tolist() == [EMPTY, 0, 1]
