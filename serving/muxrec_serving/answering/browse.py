"""Looking around in a view: one item, its picture, search by title, filter values."""

from __future__ import annotations

from typing import Any

from muxrec_serving.answering.titles import folded_words, matches
from muxrec_serving.answering.view import View
from muxrec_serving.errors import RequestError, unknown_item

MAX_FILTER_CHOICES = 200
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
)


def item_of(view: View, item_id: str) -> dict[str, Any]:
    """Display fields of an item, and whether it lives in the bundle or over it.

    Raises:
        RequestError: The item is unknown.
    """
    slot = _known(view, item_id)
    live = view.live(slot)
    facts = {"live": True} if live else {"live": False, **view.state.catalogue.facts(slot)}
    return {
        "item_id": item_id,
        "title": view.title(slot),
        "fields": view.fields(slot),
        "has_image": view.picture(slot) is not None,
        **facts,
        "bundle": view.state.digest,
    }


def picture_of(view: View, item_id: str) -> tuple[bytes, str]:
    """The item's picture and its media type, read off its first bytes.

    Raises:
        RequestError: The item is unknown or has no picture.
    """
    picture = view.picture(_known(view, item_id))
    if picture is None:
        raise RequestError(404, "no_image", f"the item {item_id[:80]!r} has no picture")
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return picture, "image/webp"
    found = (kind for start, kind in _SIGNATURES if picture.startswith(start))
    return picture, next(found, "application/octet-stream")


def search_titles(view: View, text: str, limit: int) -> dict[str, Any]:
    """Items whose titles hold the words of ``text``, live ones first."""
    words = folded_words(text)
    live_slots = range(view.state.count, view.state.count + len(view.overlay.items))
    found = [slot for slot in live_slots if matches(view.title(slot), words)]
    hidden = view.overlay.hidden
    room = limit + view.overlay.hidden_count
    stored = view.state.catalogue.title_index.search(text, room)
    found += [slot for slot in stored if hidden is None or not hidden[slot]]
    results = [{"item_id": view.item_id(slot), "title": view.title(slot)} for slot in found[:limit]]
    return {"query": text, "bundle": view.state.digest, "results": results}


def popular_items(view: View, limit: int) -> dict[str, Any]:
    """Items with the most training events, for a page that has no item yet."""
    hidden = view.overlay.hidden
    slots = view.state.catalogue.by_popularity[: limit + view.overlay.hidden_count].tolist()
    shown = [slot for slot in slots if hidden is None or not hidden[slot]][:limit]
    results = [
        {
            "item_id": view.item_id(slot),
            "title": view.title(slot),
            "has_image": view.picture(slot) is not None,
        }
        for slot in shown
    ]
    return {"bundle": view.state.digest, "results": results}


def filter_choices(view: View) -> dict[str, Any]:
    """Values of every filter column of the bundle with their counts, most frequent first."""
    attributes = view.state.attributes
    return {
        "bundle": view.state.digest,
        "filters": {
            column: [
                {"value": value, "count": count}
                for value, count in list(attributes.counts(column).items())[:MAX_FILTER_CHOICES]
            ]
            for column in attributes.columns
        },
    }


def _known(view: View, item_id: str) -> int:
    slot = view.slot(item_id)
    if slot is None:
        raise unknown_item(item_id)
    return slot
