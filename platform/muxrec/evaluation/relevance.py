"""What counts as right: the relevant items of each query, from later behaviour or the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from muxrec.data.keys import positions_of
from muxrec.errors import DataError
from muxrec.recipe.model import Recipe

CO_ENGAGEMENT = "co_engagement"
WARM_CATALOGUE = "warm_catalogue"


class PeriodReader(Protocol):
    """The part of a dataset snapshot that relevance is made of."""

    def events(self, split: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """Events of one period."""
        ...

    def pairs(self, split: str) -> pa.Table:
        """Item pairs mined from one period's events only."""
        ...


@dataclass(frozen=True)
class Relevance:
    """Relevant items of Q queries, all as positions in the catalogue.

    Attributes:
        queries: Query items, int64 ``[Q]``, rising and distinct.
        offsets: Int64 ``[Q + 1]``; the relevant items of query q are
            ``items[offsets[q]:offsets[q + 1]]``, never empty when made by ``build_relevance``.
        items: Relevant items, int64 ``[N]``, best first, distinct per query, never the query.
        unknown: Related ids that are not in the catalogue; they were left out and counted here.
        candidates: Bool ``[C]``, the only items that are ranked; None for the whole catalogue.
    """

    queries: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    unknown: int = 0
    candidates: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of relevant items per query, int64 ``[Q]``."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The query number of every relevant item, int64 ``[N]``."""
        return np.repeat(np.arange(len(self.queries)), self.sizes)


def build_relevance(
    snapshot: PeriodReader, items: pa.Table, *, split: str, recipe: Recipe
) -> dict[str, Relevance]:
    """Ground truths by name: ``co_engagement`` and every relation of ``data.source.relations``.

    A co-engagement query is an item with at least ``evaluation.min_events`` events in the period;
    its relevant items are the ``evaluation.max_relevant`` partners with the best pair score of that
    period, ties by item key. Items with too few events, or without a partner, are no queries.
    Relations come from the catalogue, know no period, and are the same in every split.

    Args:
        snapshot: Dataset snapshot, or anything with its ``events`` and ``pairs``.
        items: The snapshot's items, sorted by ``item_key``.
        split: ``validation`` for every choice, ``test`` for the final table.
        recipe: Gives ``evaluation`` and ``data.source.relations``.

    Raises:
        DataError: A pair names an item that the catalogue lacks, or a relation's column is missing.
    """
    keys = items["item_key"].to_numpy().astype(np.int64)
    truths = {CO_ENGAGEMENT: _co_engagement(snapshot, keys, split=split, recipe=recipe)}
    for name, column in recipe.data.source.relations.items():
        truths[name] = _relation(items, name, column)
    return truths


def within_catalogue(relevance: Relevance, candidates: npt.NDArray[np.bool_]) -> Relevance:
    """The same question among ``candidates`` alone, bool ``[C]``: as queries, answers and rivals.

    A model that cannot recommend cold items never wastes a place on one. Ranking warm items only
    takes that advantage away and compares what two models know about the items both know.
    """
    keep = candidates[relevance.items] & candidates[relevance.queries][relevance.rows]
    found = _grouped(relevance.queries[relevance.rows][keep], relevance.items[keep])
    return replace(found, candidates=candidates)


def _co_engagement(
    snapshot: PeriodReader, keys: npt.NDArray[np.int64], *, split: str, recipe: Recipe
) -> Relevance:
    events = snapshot.events(split=split, columns=["item_key"])
    at = positions_of(events["item_key"].to_numpy(), keys)
    busy = np.bincount(at[at >= 0], minlength=keys.size) >= recipe.evaluation.min_events
    pairs = snapshot.pairs(split)
    query = positions_of(pairs["item_a"].to_numpy(), keys)
    item = positions_of(pairs["item_b"].to_numpy(), keys)
    if (query < 0).any() or (item < 0).any():
        lost = int(((query < 0) | (item < 0)).sum())
        raise DataError(
            f"{lost} of the {split} pairs name items that the catalogue lacks: "
            "build the dataset again (muxrec data build)"
        )
    score = pairs["score"].to_numpy()
    keep = busy[query] & (query != item)
    query, item, score = query[keep], item[keep], score[keep]
    best_first = np.lexsort((item, -score, query))
    return _grouped(query[best_first], item[best_first], most=recipe.evaluation.max_relevant)


def _relation(items: pa.Table, name: str, column: str) -> Relevance:
    if column not in items.column_names:
        known = ", ".join(items.column_names)
        raise DataError(f"relation {name}: the catalogue has no column {column} (it has {known})")
    ids = items["item_id"].combine_chunks()
    related = items[column].combine_chunks()
    lengths = related.value_lengths().fill_null(0).to_numpy()
    query = np.repeat(np.arange(len(items)), lengths)
    named = related.flatten().cast(ids.type)
    found = pc.call_function("index_in", [named], pc.SetLookupOptions(ids))
    item = found.fill_null(-1).to_numpy().astype(np.int64)
    unknown = int((item < 0).sum())
    keep = (item >= 0) & (item != query)
    distinct = np.unique(np.stack([query[keep], item[keep]], axis=1), axis=0)
    return _grouped(distinct[:, 0], distinct[:, 1], unknown=unknown)


def _grouped(
    query: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    *,
    most: int | None = None,
    unknown: int = 0,
) -> Relevance:
    """Groups of equal ``query``, which must be sorted, each cut to its first ``most`` items."""
    queries, starts, sizes = np.unique(query, return_index=True, return_counts=True)
    if most is not None:
        keep = np.arange(query.size) - np.repeat(starts, sizes) < most
        item, sizes = item[keep], np.minimum(sizes, most)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Relevance(queries.astype(np.int64), offsets, item.astype(np.int64), unknown)
