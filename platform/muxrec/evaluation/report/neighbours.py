"""The neighbour browser's data: some items, their ten neighbours, and which of them came true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muxrec.evaluation.exposure import LIST_LENGTH, top_lists
from muxrec.evaluation.relevance import Relevance
from muxrec.evaluation.report.thumbnails import thumbnails
from muxrec.evaluation.scoring import vector_scorer

MAX_ITEMS = 200
PICTURE_BYTES = 3_000_000
# Parts of the list: well-known warm items, little-known warm ones, cold ones.
_WARM, _TAIL = 0.5, 0.25


def browser_data(
    items: pa.Table,
    vectors: npt.NDArray[np.float32],
    relevance: Relevance | None,
    *,
    display: Sequence[str],
    image: str | None,
) -> dict[str, Any]:
    """``items`` (title, details, cold, picture) and ``queries`` (item, neighbours with score, hit).

    Args:
        items: Catalogue.
        vectors: Item vectors of the main row, float32 ``[C, D]``.
        relevance: Decides which items are browsed and which neighbours are marked as hits.
        display: Columns shown, the title first; unknown ones are left out.
        image: Column with the picture file; None for no pictures.
    """
    chosen = choose_items(items, relevance)
    scorer = vector_scorer(vectors)
    lists = top_lists(scorer, chosen, k=LIST_LENGTH)
    order = list(dict.fromkeys([*chosen.tolist(), *lists.T[lists.T >= 0].tolist()]))
    number = {position: at for at, position in enumerate(order)}
    hits = _relevant(relevance)
    queries = []
    for position, row in zip(chosen.tolist(), lists, strict=True):
        found = [int(item) for item in row if item >= 0]
        scores = vectors[found] @ vectors[position]
        neighbours = [
            [number[item], round(float(score), 3), int((position, item) in hits)]
            for item, score in zip(found, scores, strict=True)
        ]
        queries.append({"item": number[position], "neighbours": neighbours})
    return {"items": _described(items.take(order), display, image), "queries": queries}


def choose_items(items: pa.Table, relevance: Relevance | None) -> npt.NDArray[np.int64]:
    """Positions of at most 200 items to browse, int64: well-known, little-known and cold ones.

    Queries of the ground truth go first, so that hits can be shown.
    """
    events = items["train_events"].to_numpy()
    cold = items["is_cold"].to_numpy().astype(bool)
    asked = np.zeros(len(items), dtype=bool)
    if relevance is not None:
        asked[relevance.queries] = True
    position = np.arange(len(items))
    warm = np.lexsort((position, -events, ~asked, cold))[: int((~cold).sum())]
    late = np.lexsort((position, ~asked, ~cold))[: int(cold.sum())]
    tail = warm[np.lexsort((warm, events[warm], ~asked[warm]))]
    picked = [*warm[: int(MAX_ITEMS * _WARM)], *tail[: int(MAX_ITEMS * _TAIL)], *late]
    distinct = list(dict.fromkeys([*picked[:MAX_ITEMS], *warm]))
    return np.array(distinct[:MAX_ITEMS], dtype=np.int64)


def _relevant(relevance: Relevance | None) -> set[tuple[int, int]]:
    if relevance is None:
        return set()
    queries = relevance.queries[relevance.rows].tolist()
    return set(zip(queries, relevance.items.tolist(), strict=True))


def _described(items: pa.Table, display: Sequence[str], image: str | None) -> list[dict[str, Any]]:
    shown = [column for column in display if column in items.column_names] or ["item_id"]
    columns = [[_text(value) for value in items[column].to_pylist()] for column in shown]
    ids = items["item_id"].to_pylist()
    cold = items["is_cold"].to_pylist()
    has_image = image is not None and image in items.column_names
    files = items[image].to_pylist() if has_image else [None] * len(ids)
    paths = [Path(file) if file else None for file in files]
    pictures = thumbnails(paths, limit_bytes=PICTURE_BYTES)
    return [
        {
            "title": columns[0][at] or str(ids[at]),
            "details": " · ".join(column[at] for column in columns[1:] if column[at]),
            "cold": bool(cold[at]),
            "picture": pictures[at],
        }
        for at in range(len(ids))
    ]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).replace("|", ", ")
