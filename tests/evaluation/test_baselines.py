from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from muxrec.evaluation.baselines import BASELINES
from muxrec.evaluation.baselines.view import BaselineUnavailableError, training_view
from muxrec.evaluation.exposure import top_lists
from muxrec.evaluation.metrics import evaluate_scores
from muxrec.evaluation.relevance import CO_ENGAGEMENT, build_relevance
from muxrec.evaluation.scoring import NEVER, score_blocks
from muxrec.features.arrays import Dense
from muxrec.spec.features import FeatureSpec

BLIND = ("random", "popularity")
BEHAVIOUR = ("co-occurrence", "cosine", "cosine (implicit)", "BM25 (implicit)")


def group_vectors(count: int, seed: int) -> Dense:
    """A vector per item that points to its side of the checkerboard; the first has none."""
    rng = np.random.default_rng(seed)
    sides = np.stack([np.arange(count) % 2, 1 - np.arange(count) % 2], axis=1)
    values = sides + 0.1 * rng.random((count, 2))
    return Dense(values.astype(np.float32), np.arange(count) > 0)


@pytest.fixture
def with_dense(recipe):
    text = FeatureSpec("sentence", "text", ("title",), "text", encoder="package:some_model")
    return replace(recipe, features=(*recipe.features, text))


def view_of(snapshot, recipe):
    count = len(snapshot.items())
    dense = {"sentence": group_vectors(count, 1), "poster": group_vectors(count, 2)}
    return training_view(snapshot, snapshot.items(), recipe=recipe, dense=dense)


def all_scores(scorer):
    return np.concatenate([s for _, s in score_blocks(scorer, np.arange(scorer.count))])


@pytest.mark.parametrize("name", [n for n in BASELINES if n not in BLIND])
def test_a_baseline_lists_an_items_own_side_of_the_board_first(name, checkerboard, with_dense):
    scorer = BASELINES[name](view_of(checkerboard, with_dense))
    warm = np.arange(1, scorer.count - 4)
    lists = top_lists(scorer, warm, k=5)
    assert (lists >= 0).any(axis=1).all()
    own_side = ((lists - warm[:, None]) % 2 == 0) | (lists < 0)
    assert own_side.all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_beats_or_equals_chance(name, checkerboard, with_dense):
    truth = build_relevance(checkerboard, checkerboard.items(), split="test", recipe=with_dense)
    scorer = BASELINES[name](view_of(checkerboard, with_dense))
    found = evaluate_scores(scorer, truth[CO_ENGAGEMENT], ks=(10,)).mean("recall_at_10")
    if name in BLIND:
        assert 0.2 < found < 0.6
    else:
        assert found > 0.6


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_answers_in_the_scorers_contract(name, checkerboard, with_dense):
    scorer = BASELINES[name](view_of(checkerboard, with_dense))
    queries = np.array([3, 0, 23])
    scores = scorer(queries)
    assert scores.shape == (3, scorer.count) == (3, 24)
    assert scores.dtype == np.float32
    assert not np.isnan(scores).any()
    assert np.array_equal(scores[1:2], scorer(queries[1:2]))


@pytest.mark.parametrize("name", BASELINES)
def test_later_events_change_no_baselines_score(name, checkerboard, with_dense):
    before = all_scores(BASELINES[name](view_of(checkerboard, with_dense)))
    assert np.array_equal(
        before, all_scores(BASELINES[name](view_of(shuffle_later(checkerboard), with_dense)))
    )


def shuffle_later(snapshot):
    """The snapshot with every later event moved to other items and all later pairs turned round."""
    events = snapshot.events()
    later = np.array(events["split"].to_pylist()) != "train"
    keys = events["item_key"].to_numpy().copy()
    keys[later] = np.random.default_rng(9).permutation(keys[later])
    moved = events.set_column(2, "item_key", pa.array(keys)).filter(
        pa.array(~later | (np.arange(len(events)) % 3 > 0))
    )
    items = snapshot.items().append_column("test_events", pa.array(np.arange(24)))
    empty = snapshot.pairs("train").schema.empty_table()
    pairs = {"train": snapshot.pairs("train"), "validation": empty, "test": empty}
    return replace(snapshot, event_table=moved, pair_tables=pairs, item_table=items)


def test_the_view_holds_no_column_counted_on_later_events(checkerboard, recipe):
    view = view_of(shuffle_later(checkerboard), recipe)
    assert "test_events" not in view.items.column_names


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_behaviour_baselines_say_nothing_about_cold_items(name, checkerboard, with_dense):
    scores = all_scores(BASELINES[name](view_of(checkerboard, with_dense)))
    assert (scores[:, -4:] == NEVER).all()
    assert (scores[-4:] == NEVER).all()


def test_events_below_the_least_weight_are_not_seen(checkerboard, recipe):
    pairs = replace(recipe.data.pairs, min_weight=4.5)
    strict = replace(recipe, data=replace(recipe.data, pairs=pairs))
    with pytest.raises(BaselineUnavailableError, match="no training event"):
        BASELINES["BM25 (implicit)"](view_of(checkerboard, strict))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TF-IDF", "no tokens or text feature"),
        ("text untrained", "no prepared text feature"),
        ("image untrained", "no prepared image feature"),
    ],
)
def test_a_baseline_without_its_feature_says_so(name, message, checkerboard, recipe):
    bare = replace(recipe, features=recipe.features[:1])
    view = training_view(checkerboard, checkerboard.items(), recipe=bare)
    with pytest.raises(BaselineUnavailableError, match=message):
        BASELINES[name](view)
