from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from muxrec.evaluation.metrics import rank_metrics
from muxrec.evaluation.relevance import CO_ENGAGEMENT, build_relevance
from muxrec.evaluation.slices import build_slices, missing_items, slice_metrics, tail_items
from muxrec.spec.features import FeatureSpec


@pytest.fixture
def truth(checkerboard, recipe):
    items = checkerboard.items()
    return build_relevance(checkerboard, items, split="test", recipe=recipe)[CO_ENGAGEMENT]


@pytest.fixture
def slices(checkerboard, recipe, truth):
    return {s.name: s for s in build_slices(checkerboard.items(), truth, recipe.features)}


def test_warm_and_cold_share_the_queries_out(slices, truth):
    assert (slices["warm"].queries ^ slices["cold"].queries).all()
    assert set(truth.queries[slices["cold"].queries]) <= {20, 21, 22, 23}


def test_head_and_tail_share_the_queries_out(slices):
    assert (slices["head"].queries ^ slices["tail"].queries).all()


def test_the_tail_is_the_half_with_the_fewest_events():
    assert tail_items(np.array([5, 0, 9, 1])).tolist() == [False, True, False, True]
    assert tail_items(np.array([2, 2, 2])).tolist() == [True, False, False]


def test_items_without_picture_make_a_slice_and_empty_slices_are_left_out(slices, truth):
    assert set(truth.queries[slices["no_image"].queries]) == {0, 5, 10, 15, 20}
    assert "no_text" not in slices


def test_unseen_targets_count_cold_answers_only_at_their_place_in_the_whole_ranking(slices, truth):
    ranks = np.tile(np.arange(1, 11), len(truth))
    found = slice_metrics(ranks, truth, slices["unseen_targets"], ks=(10,))["recall_at_10"]
    cold = np.isin(truth.items, [20, 21, 22, 23])
    for query in range(len(truth)):
        own = cold[truth.offsets[query] : truth.offsets[query + 1]]
        assert np.isnan(found[query]) == (not own.any())
        if own.any():
            assert found[query] == 1.0
    warm_only = np.where(cold, 0, ranks)
    nothing = slice_metrics(warm_only, truth, slices["unseen_targets"], ks=(10,))["recall_at_10"]
    assert np.nanmax(nothing) == 0.0


def test_slices_of_all_queries_change_no_number(slices, truth):
    ranks = np.arange(1, len(truth.items) + 1)
    whole = rank_metrics(ranks, truth.offsets, ks=(5,))
    part = slice_metrics(ranks, truth, slices["all"], ks=(5,))
    assert all(np.array_equal(whole[name], part[name]) for name in whole)


def test_warm_and_cold_means_average_to_the_mean_of_all(slices, truth):
    ranks = np.random.default_rng(0).integers(1, 30, len(truth.items))
    found = {
        name: slice_metrics(ranks, truth, slices[name], ks=(5,))["recall_at_5"]
        for name in ("all", "warm", "cold")
    }
    both = np.where(np.isnan(found["warm"]), found["cold"], found["warm"])
    assert np.array_equal(both, found["all"])


def test_an_item_lacks_a_modality_when_all_its_columns_are_empty():
    items = pa.table(
        {
            "title": ["a", " ", None, ""],
            "words": [["x"], [], None, ["y"]],
            "vector": [None, [0.1], None, None],
        }
    )
    features = (
        FeatureSpec("words", "tokens", ("title", "words"), "text", table="t"),
        FeatureSpec("picture", "vector", ("vector",), "image", width=1),
    )
    assert missing_items(items, features, "text").tolist() == [False, True, True, False]
    assert missing_items(items, features, "image").tolist() == [True, False, True, True]
    assert not missing_items(items, features, "attributes").any()
