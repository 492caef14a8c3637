"""What was written live, as it came: the truth from which every bundle's overlay is made."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from muxrec.log import event
from muxrec_serving.answering.state import ServingState
from muxrec_serving.errors import RequestError
from muxrec_serving.live.encoding import encode_items
from muxrec_serving.live.journal import Entries, Journal
from muxrec_serving.live.overlay import LiveItem, Overlay

log = logging.getLogger("muxrec_serving.live")


class LiveEntries:
    """Raw items and deletions by id, in memory and, where there is one, in the journal."""

    def __init__(self, journal: Journal | None) -> None:
        """Begin with what ``journal`` says."""
        self._journal = journal
        self._entries: Entries = dict(journal.entries) if journal else {}

    async def record(self, item_id: str, item: dict[str, Any] | None) -> None:
        """Keep one upsert, or a deletion when ``item`` is None; it is on disk when this returns.

        Raises:
            RequestError: The journal could not be written (507); nothing was kept.
        """
        if self._journal is not None:
            try:
                await asyncio.to_thread(self._journal.append, item_id, item)
            except OSError as error:
                log.error(event("journal_failed", error=error))
                message = f"the journal could not be written: {error.strerror}"
                raise RequestError(507, "journal_failed", message) from error
        self._entries.pop(item_id, None)
        self._entries[item_id] = item

    def overlay(self, state: ServingState) -> tuple[Overlay, int]:
        """The overlay over ``state``, and how many live items its tower cannot encode.

        Those stay among the entries: another bundle may know their columns again.
        """
        entries = dict(self._entries)
        raw = {name: item for name, item in entries.items() if item is not None}
        deleted = frozenset(name for name, item in entries.items() if item is None)
        encoded = encode_items(state, list(raw.values())) if raw else []
        items: dict[str, LiveItem] = {}
        for name, result in zip(raw, encoded, strict=True):
            if isinstance(result, LiveItem):
                items[name] = result
            else:
                log.warning(event("live_item_not_encodable", item=name, why=result.message))
        positions = state.catalogue.positions
        made = Overlay.build(items, deleted, positions=positions, width=state.width)
        return made, len(raw) - len(items)

    def close(self) -> None:
        """Release the journal."""
        if self._journal is not None:
            self._journal.close()
