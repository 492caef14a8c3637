"""The neighbours of a vector: precomputed, from the index or exact, what is right and cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from muxrec.errors import BundleError
from muxrec.index import best_of
from muxrec_serving.answering.attributes import meets
from muxrec_serving.answering.view import View
from muxrec_serving.query import Filter

Float32Array = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]
Source = Literal["precomputed", "searched", "exact"]

EXACT_BELOW = 2048
"""Catalogues up to this size are scored whole: the product costs less than walking the graph."""

SMALL_SUBSET = 20_000
"""Filtered subsets up to this size are scored exactly (research: 59 us at 10 k rows of 64)."""

SORTED_WHOLE = 512
"""Up to here one sort costs less than the steps around a partial one (10 against 45 us at 30)."""


@dataclass(frozen=True)
class Query:
    """What neighbours are wanted of.

    Attributes:
        vector: Unit vector, float32 ``[D]``.
        parts: What each modality gave to it, float32 ``[M, D]``; None for a bare vector.
        slot: Its own slot, never returned; None for what is not in the catalogue.
    """

    vector: Float32Array
    parts: Float32Array | None = None
    slot: int | None = None


@dataclass(frozen=True)
class Ranked:
    """Neighbours, best first.

    Attributes:
        slots: int64 ``[K]``.
        scores: Inner products, float32 ``[K]``.
        source: How they were found.
    """

    slots: Slots
    scores: Float32Array
    source: Source


def query_of(view: View, slot: int, *, with_parts: bool = True) -> Query:
    """The query of an item that is in the catalogue; parts are read for reasons only."""
    return Query(view.vector(slot), view.parts(slot) if with_parts else None, slot)


def rank(view: View, query: Query, *, k: int, where: Filter = (), stored: bool = True) -> Ranked:
    """The ``k`` best items for ``query`` that meet ``where``; fewer when fewer meet it.

    Hidden items and the query itself are never among them. Live items are scored exactly. With
    ``stored`` false the query's vector is new and its slot's precomputed list is not used.
    """
    found = _precomputed(view, query, k=k, where=where) if stored else None
    if found is None:
        found = _filtered(view, query, k=k, where=where) if where else _open(view, query, k=k)
    return _with_live(view, query, found, k=k, where=where) if view.overlay.items else found


def reasons(view: View, query: Query, ranked: Ranked) -> Float32Array:
    """Share of each neighbour's score by modality, float32 ``[K, M]``; rows sum to the scores.

    A vector is the sum of its modalities' parts, so the inner product is the sum over modalities of
    ``(parts_q[m] . v_i + v_q . parts_i[m]) / 2``. A bare vector has no parts: its neighbours' parts
    alone explain it. Parts are stored in half precision; what that loses (below 1e-3) is given to
    the largest share.
    """
    parts = np.stack([view.parts(int(slot)) for slot in ranked.slots])
    shares = parts @ query.vector
    if query.parts is not None:
        vectors = np.stack([view.vector(int(slot)) for slot in ranked.slots])
        shares = (shares + vectors @ query.parts.T) / 2
    lost = ranked.scores - shares.sum(axis=1)
    shares[np.arange(len(shares)), np.abs(shares).argmax(axis=1)] += lost
    return shares


def _precomputed(view: View, query: Query, *, k: int, where: Filter) -> Ranked | None:
    """Neighbours from the bundle's exact lists, None where they do not reach."""
    state = view.state
    if query.slot is None or query.slot >= state.count:
        return None
    slots, scores = state.neighbours[query.slot], state.scores[query.slot]
    if where or view.overlay.hidden is not None:
        kept = _allowed(view, slots, where=where)
        slots, scores = slots[kept], scores[kept]
    is_whole = state.neighbours.shape[1] >= state.count - 1
    if len(slots) < k and not is_whole:
        return None
    return Ranked(slots[:k], scores[:k], "precomputed")


def _allowed(view: View, slots: Slots, *, where: Filter) -> npt.NDArray[np.bool_]:
    kept = np.ones(len(slots), dtype=bool)
    if view.overlay.hidden is not None:
        kept &= ~view.overlay.hidden[slots]
    if where:
        subset = view.state.attributes.select(where)
        at = np.searchsorted(subset, slots)
        inside = at < len(subset)
        kept &= inside
        kept[inside] &= subset[at[inside]] == slots[inside]
    return kept


def _open(view: View, query: Query, *, k: int) -> Ranked:
    """Neighbours among all items of the bundle, by the index with room for what is hidden."""
    state = view.state
    fetch = max(2 * k, k + 16) + view.overlay.hidden_count + 1
    if state.count > EXACT_BELOW and fetch <= state.count // 4:
        try:
            slots = state.index.search(query.vector[None], fetch)[0][0]
        except BundleError:
            # A poorly linked graph finds too few; the exact answer is always there.
            return _exact(view, query, np.arange(state.count), state.vectors, k=k)
        slots = slots[_eligible(view, query, slots)]
        if len(slots) >= k:
            found, scores = _best(slots, state.vectors[slots] @ query.vector, k)
            return Ranked(found, scores, "searched")
    return _exact(view, query, np.arange(state.count), state.vectors, k=k)


def _filtered(view: View, query: Query, *, k: int, where: Filter) -> Ranked:
    """Neighbours within a subset: exact when small, else from the index with a growing fetch."""
    state = view.state
    subset, vectors = state.attributes.subset(where)
    if 0 < len(subset) > SMALL_SUBSET:
        fetch = int(k * state.count / len(subset) * 2) + view.overlay.hidden_count + 16
        while fetch <= state.count // 4:
            slots = state.index.search(query.vector[None], fetch)[0][0]
            slots = slots[_eligible(view, query, slots) & _allowed(view, slots, where=where)]
            if len(slots) >= k:
                found, scores = _best(slots, state.vectors[slots] @ query.vector, k)
                return Ranked(found, scores, "searched")
            fetch *= 4
    return _exact(view, query, subset, vectors, k=k)


def _exact(view: View, query: Query, slots: Slots, vectors: Float32Array, *, k: int) -> Ranked:
    kept = _eligible(view, query, slots)
    found, scores = _best(slots[kept], (vectors @ query.vector)[kept], k)
    return Ranked(found, scores, "exact")


def _eligible(view: View, query: Query, slots: Slots) -> npt.NDArray[np.bool_]:
    kept = np.ones(len(slots), dtype=bool) if query.slot is None else slots != query.slot
    return kept if view.overlay.hidden is None else kept & ~view.overlay.hidden[slots]


def _with_live(view: View, query: Query, found: Ranked, *, k: int, where: Filter) -> Ranked:
    """``found`` with the live items merged in by score."""
    scores = view.overlay.vectors @ query.vector
    if query.slot is not None and query.slot >= view.state.count:
        scores[query.slot - view.state.count] = -np.inf
    # Most live items are too far to matter: only those that beat the last one found are merged.
    worst = found.scores[-1] if len(found.slots) == k else -np.inf
    near = np.flatnonzero(scores > worst)
    if where:
        items = list(view.overlay.items.values())
        near = np.array([row for row in near if meets(items[row].raw, where)], dtype=np.int64)
    if len(near) == 0:
        return found
    merged = np.concatenate([found.slots, view.state.count + near])
    best, values = _best(merged, np.concatenate([found.scores, scores[near]]), k)
    return Ranked(best, values, found.source)


def _best(slots: Slots, scores: Float32Array, k: int) -> tuple[Slots, Float32Array]:
    """The ``k`` best of ``slots`` by score, ties by slot."""
    if len(slots) <= SORTED_WHOLE:
        order = np.lexsort((slots, -scores))[:k]
        return slots[order], scores[order]
    order, values = best_of(scores[None], min(k, len(slots)))
    return slots[order[0]], values[0]
