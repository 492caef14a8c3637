"""Parts of the queries, or of the answers, that are looked at on their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from muxrec.evaluation.metrics import PerQuery, rank_metrics
from muxrec.evaluation.relevance import Relevance
from muxrec.spec.features import FeatureSpec, Modality

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """A part of one ground truth.

    Attributes:
        name: Short name used in files: ``all``, ``warm``, ``cold``, ``unseen_targets``, ...
        title: What it holds, for people.
        queries: Bool ``[Q]``, queries that belong to it.
        targets: Bool ``[N]``, relevant items that count; None for all of them.
    """

    name: str
    title: str
    queries: Mask
    targets: Mask | None = None


def build_slices(
    items: pa.Table, relevance: Relevance, features: tuple[FeatureSpec, ...]
) -> tuple[Slice, ...]:
    """All slices of a ground truth, empty ones left out; ``all`` is always the first.

    Args:
        items: The snapshot's items, with ``is_cold`` and ``train_events``.
        relevance: Queries and relevant items, as positions in ``items``.
        features: Decide which columns are an item's text and image.
    """
    cold = items["is_cold"].to_numpy().astype(bool)
    tail = tail_items(items["train_events"].to_numpy())
    everyone = np.ones(len(relevance), dtype=bool)
    asked = relevance.queries
    found = [
        Slice("warm", "Warm queries: items with training pairs", ~cold[asked]),
        Slice("cold", "Cold queries: items without any training pair", cold[asked]),
        Slice(
            "unseen_targets", "Cold answers: only cold items count", everyone, cold[relevance.items]
        ),
        Slice("head", "Head queries: upper half of the catalogue by training events", ~tail[asked]),
        Slice("tail", "Tail queries: lower half of the catalogue by training events", tail[asked]),
    ]
    for modality in ("image", "text"):
        missing = missing_items(items, features, modality)
        found.append(Slice(f"no_{modality}", f"Queries without {modality}", missing[asked]))
    kept = [s for s in found if s.queries.any() and (s.targets is None or s.targets.any())]
    return (Slice("all", "All queries", everyone), *kept)


def slice_metrics(
    ranks: npt.NDArray[np.int64], relevance: Relevance, part: Slice, *, ks: Sequence[int]
) -> dict[str, PerQuery]:
    """Per-query metrics of one slice, float64 ``[Q]``; NaN for queries that are not in it.

    With ``part.targets`` only those relevant items count, at the ranks that they have among the
    whole catalogue; a query without any of them is not counted.
    """
    if part.targets is None:
        offsets = relevance.offsets
    else:
        kept = np.bincount(relevance.rows[part.targets], minlength=len(relevance))
        offsets = np.concatenate([[0], np.cumsum(kept)])
        ranks = ranks[part.targets]
    metrics = rank_metrics(ranks, offsets, ks=ks)
    return {name: np.where(part.queries, values, np.nan) for name, values in metrics.items()}


def tail_items(train_events: npt.NDArray[np.int64]) -> Mask:
    """Bool ``[C]``: the half of the catalogue with the fewest training events, ties by position."""
    order = np.argsort(train_events, kind="stable")
    tail = np.zeros(train_events.size, dtype=bool)
    tail[order[: train_events.size // 2]] = True
    return tail


def missing_items(items: pa.Table, features: tuple[FeatureSpec, ...], modality: Modality) -> Mask:
    """Bool ``[C]``: every column of the modality's features is empty; all False without any."""
    columns = {c for f in features if f.modality == modality for c in f.columns}
    columns &= set(items.column_names)
    missing = np.full(len(items), bool(columns))
    for column in columns:
        missing &= _is_empty(items[column])
    return missing


def _is_empty(column: pa.ChunkedArray) -> Mask:
    empty = column.is_null()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        trimmed = pc.call_function("utf8_trim_whitespace", [column])
        empty = pc.call_function("or_kleene", [empty, pc.call_function("equal", [trimmed, ""])])
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        length = pc.call_function("list_value_length", [column])
        empty = pc.call_function("or_kleene", [empty, pc.call_function("equal", [length, 0])])
    return empty.to_numpy().astype(bool)
