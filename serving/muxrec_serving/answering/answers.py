"""Neighbour lists as JSON bytes."""

from __future__ import annotations

from typing import Any

import orjson

from muxrec_serving.answering.ranking import Query, Ranked, reasons
from muxrec_serving.answering.view import View
from muxrec_serving.query import Wanted

SCORE_DIGITS = 6


def neighbours_of(view: View, query: Query, ranked: Ranked, wanted: Wanted) -> list[dict[str, Any]]:
    """One JSON object per neighbour: id and score, and on request reasons and display fields."""
    names = view.item_ids(ranked.slots.tolist())
    listed: list[dict[str, Any]] = [
        {"item_id": name, "score": round(score, SCORE_DIGITS)}
        for name, score in zip(names, ranked.scores.tolist(), strict=True)
    ]
    if wanted.explain and listed:
        modalities = view.state.bundle.modalities
        for neighbour, row in zip(listed, reasons(view, query, ranked).tolist(), strict=True):
            shares = (round(share, SCORE_DIGITS) for share in row)
            neighbour["reasons"] = dict(zip(modalities, shares, strict=True))
    if wanted.display:
        for neighbour, slot in zip(listed, ranked.slots.tolist(), strict=True):
            neighbour["title"] = view.title(slot)
            neighbour["has_image"] = view.picture(slot) is not None
            neighbour["fields"] = view.fields(slot)
    return listed


def answer(
    view: View, query: Query, ranked: Ranked, wanted: Wanted, *, item_id: str | None, source: str
) -> dict[str, Any]:
    """One whole answer; ``item_id`` is left out for what has none."""
    head = {} if item_id is None else {"item_id": item_id}
    listed = neighbours_of(view, query, ranked, wanted)
    return {**head, "bundle": view.state.digest, "source": source, "neighbours": listed}


def json_bytes(value: object) -> bytes:
    """UTF-8 JSON; values that JSON does not know (dates of display fields) become strings."""
    return orjson.dumps(value, default=str)
