"""Every way of finding neighbours against one brute-force answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxrec_serving.answering import ranking
from muxrec_serving.answering.attributes import meets
from muxrec_serving.answering.ranking import Query, query_of, rank, reasons
from muxrec_serving.answering.state import ServingState
from muxrec_serving.answering.view import View
from muxrec_serving.live.overlay import LiveItem, Overlay
from muxrec_serving.query import parse_filters

FILTERS = [(), parse_filters(["genre:comedy"]), parse_filters(["genre:drama,western", "year:1960"])]
SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def live_item(state: ServingState, seed: int, genre: str) -> LiveItem:
    drawn = np.random.default_rng(seed).normal(size=(2, state.width)).astype(np.float32)
    parts = drawn / np.linalg.norm(drawn.sum(axis=0))
    return LiveItem({"genre": genre, "year": 1960}, parts.sum(axis=0), parts)


def view_with(state: ServingState, live: dict[str, LiveItem], deleted: frozenset[str]) -> View:
    positions = state.catalogue.positions
    return View(state, Overlay.build(live, deleted, positions=positions, width=state.width))


def brute_force(view: View, query: Query, where: tuple) -> list[tuple[float, str]]:
    """Every visible item's score, best first, by id."""
    state, overlay = view.state, view.overlay
    scores = {
        item_id: (float(state.vectors[at] @ query.vector), raw)
        for at, (item_id, raw) in enumerate(
            zip(state.catalogue.item_ids, state.catalogue.table.to_pylist(), strict=True)
        )
        if item_id not in overlay.deleted
    }
    for item_id, item in overlay.items.items():
        scores[item_id] = (float(item.vector @ query.vector), item.raw)
    if query.slot is not None:
        scores.pop(view.item_id(query.slot), None)
    kept = [(score, item_id) for item_id, (score, raw) in scores.items() if meets(raw, where)]
    return sorted(kept, key=lambda entry: -entry[0])


def assert_same(view: View, query: Query, k: int, where: tuple) -> None:
    ranked = rank(view, query, k=k, where=where)
    expected = brute_force(view, query, where)[:k]
    names = [view.item_id(int(slot)) for slot in ranked.slots]
    # 1e-6: the same float32 products, summed in another order.
    assert np.allclose(ranked.scores, [score for score, _ in expected], atol=1e-6)
    assert len(names) == len(set(names)) == len(expected)
    if query.slot is not None:
        assert view.item_id(query.slot) not in names
    assert not view.overlay.deleted.intersection(names)


@SHARED
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 60),
    where=st.sampled_from(FILTERS),
    live=st.lists(st.sampled_from(["new-1", "new-2", "item-3", "item-7"]), unique=True),
    deleted=st.sets(st.integers(0, 199), max_size=120),
    kind=st.sampled_from(["stored", "bare"]),
)
def test_answers_equal_brute_force(state, seed, k, where, live, deleted, kind):
    hidden = frozenset(f"item-{at}" for at in deleted) - set(live)
    items = {name: live_item(state, seed + n, "comedy") for n, name in enumerate(live)}
    view = view_with(state, items, hidden)
    visible = [name for name in (*state.catalogue.item_ids, *live) if view.slot(name) is not None]
    rng = np.random.default_rng(seed)
    query = query_of(view, view.slot(str(rng.choice(visible))))
    if kind == "bare":
        query = Query(live_item(state, seed + 99, "x").vector)
    assert_same(view, query, k, where)


def test_the_index_path_equals_brute_force(state: ServingState, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranking, "EXACT_BELOW", 10)
    deep = replace(state, index=state.bundle.index(ef=200))
    view = view_with(deep, {}, frozenset({"item-5"}))
    for seed in range(20):
        query = Query(live_item(state, seed, "x").vector)
        assert rank(view, query, k=5).source == "searched"
        assert_same(view, query, 5, ())


def test_large_subsets_go_through_the_index_and_stay_right(
    state: ServingState, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ranking, "SMALL_SUBSET", 10)
    deep = replace(state, index=state.bundle.index(ef=200))
    view = view_with(deep, {}, frozenset({"item-5"}))
    where = parse_filters(["genre:drama,western,comedy"])
    sources = set()
    for seed in range(10):
        query = Query(live_item(state, seed, "x").vector)
        sources.add(rank(view, query, k=5, where=where).source)
        assert_same(view, query, 5, where)
    assert sources == {"searched"}


def test_a_stored_list_that_is_filtered_too_short_is_not_used(state: ServingState):
    view = view_with(state, {}, frozenset())
    where = parse_filters(["year:1960"])
    query = query_of(view, 0)
    assert rank(view, query, k=1, where=()).source == "precomputed"
    assert rank(view, query, k=3, where=where).source == "exact"


@pytest.mark.parametrize("has_parts", [True, False])
def test_reasons_sum_to_the_score(state: ServingState, has_parts: bool):
    view = view_with(state, {"new": live_item(state, 1, "comedy")}, frozenset())
    for slot in (0, 17, view.slot("new")):
        query = query_of(view, slot)
        query = query if has_parts else Query(query.vector)
        ranked = rank(view, query, k=30)
        shares = reasons(view, query, ranked)
        assert shares.shape == (30, len(state.bundle.modalities))
        # 1e-6: float32 addition of two shares.
        assert np.allclose(shares.sum(axis=1), ranked.scores, atol=1e-6)


def test_an_item_without_text_gets_its_reasons_from_the_picture(state: ServingState):
    parts = np.zeros((2, state.width), dtype=np.float32)
    parts[1, 0] = 1
    pictured = {name: LiveItem({}, parts.sum(axis=0), parts) for name in ("p", "q")}
    view = view_with(state, pictured, frozenset())
    query = query_of(view, view.slot("p"))
    ranked = rank(view, query, k=1)
    assert view.item_id(int(ranked.slots[0])) == "q"
    assert reasons(view, query, ranked).tolist() == [[0.0, 1.0]]
