from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from muxrec.data.keys import positions_of
from muxrec.errors import DataError
from muxrec.evaluation.metrics import target_ranks
from muxrec.evaluation.relevance import (
    CO_ENGAGEMENT,
    Relevance,
    build_relevance,
    within_catalogue,
)
from muxrec.evaluation.scoring import vector_scorer


def test_relevant_items_are_the_best_partners_of_the_period(checkerboard, recipe):
    truth = build_relevance(checkerboard, checkerboard.items(), split="test", recipe=recipe)
    found = truth[CO_ENGAGEMENT]
    assert found.sizes.max() == recipe.evaluation.max_relevant
    queries = found.queries[found.rows]
    assert ((queries - found.items) % 2 == 0).all()
    assert (queries != found.items).all()
    at = int(np.flatnonzero(found.queries == 8)[0])
    nearest = found.items[found.offsets[at] : found.offsets[at + 1]]
    assert list(nearest[:4]) == [6, 10, 4, 12]


def test_items_with_few_events_in_the_period_are_no_queries(checkerboard, recipe):
    events = checkerboard.events("test", ["item_key"])["item_key"].to_numpy()
    keys, counts = np.unique(events, return_counts=True)
    fewest = int(counts.min()) + 1
    strict = replace(recipe, evaluation=replace(recipe.evaluation, min_events=fewest))
    truth = build_relevance(checkerboard, checkerboard.items(), split="test", recipe=strict)
    all_keys = checkerboard.items()["item_key"].to_numpy()
    assert set(all_keys[truth[CO_ENGAGEMENT].queries]) == set(keys[counts >= fewest])


def test_relations_come_from_the_catalogue_and_unknown_ids_are_counted(checkerboard, recipe):
    items = checkerboard.items()
    truth = build_relevance(checkerboard, items, split="test", recipe=recipe)["next"]
    assert truth.unknown == len(items)
    assert np.array_equal(truth.items, (truth.queries + 2) % len(items))


def test_a_relation_to_itself_twice_and_to_nothing_is_left_out(checkerboard, recipe):
    items = checkerboard.items()
    lists = [["100", "110", "110"], None, []] + [["100"]] * (len(items) - 3)
    column = pa.array(lists, type=pa.list_(pa.string()))
    items = items.set_column(items.column_names.index("related"), "related", column)
    truth = build_relevance(checkerboard, items, split="test", recipe=recipe)["next"]
    assert list(truth.queries[:2]) == [0, 3]
    assert list(truth.items[:1]) == [1]
    assert truth.sizes.max() == 1


def test_a_pair_outside_the_catalogue_is_an_error(checkerboard, recipe):
    with pytest.raises(DataError, match="test pairs name items that the catalogue lacks"):
        build_relevance(checkerboard, checkerboard.items().slice(2), split="test", recipe=recipe)


def test_a_missing_relation_column_is_named(checkerboard, recipe):
    items = checkerboard.items().drop_columns(["related"])
    with pytest.raises(DataError, match="relation next: the catalogue has no column related"):
        build_relevance(checkerboard, items, split="test", recipe=recipe)


def test_positions_of_unknown_keys_are_minus_one():
    keys = np.array([-5, 3, 9])
    assert list(positions_of(np.array([9, 4, -5, 100]), keys)) == [2, -1, 0, -1]
    assert list(positions_of(np.array([1]), np.array([], dtype=np.int64))) == [-1]


def test_within_a_part_of_the_catalogue_only_that_part_asks_answers_and_competes():
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.99, 0.1], [0.0, 1.0]], dtype=np.float32)
    truth = Relevance(np.array([0, 2]), np.array([0, 2, 3]), np.array([1, 2, 0]), unknown=0)
    part = within_catalogue(truth, np.array([True, True, False, True]))
    assert part.queries.tolist() == [0]
    assert part.items.tolist() == [1]
    assert target_ranks(vector_scorer(vectors), part).tolist() == [1]
    assert target_ranks(vector_scorer(vectors), truth).tolist()[0] == 2
