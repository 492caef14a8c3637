"""What the service does, without HTTP: answers from one view, live writes, hot swap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from muxrec.log import event
from muxrec_serving.answering.answers import answer, json_bytes
from muxrec_serving.answering.ranking import Query, query_of, rank
from muxrec_serving.answering.state import ServingState
from muxrec_serving.answering.view import View
from muxrec_serving.errors import RequestError, unknown_item
from muxrec_serving.limits import MAX_K, MAX_LIVE_ITEMS
from muxrec_serving.live.encoding import MicroBatcher
from muxrec_serving.live.entries import LiveEntries
from muxrec_serving.live.journal import Journal
from muxrec_serving.live.overlay import LiveItem, Overlay
from muxrec_serving.live.rawitem import ItemSchema
from muxrec_serving.metrics import Metrics
from muxrec_serving.query import Wanted, check_k

log = logging.getLogger("muxrec_serving.answering")


class Service:
    """The bundle in service and the live items over it.

    Attributes:
        view: The current version; every request reads it once and keeps what it read.
        metrics: Counters.
        is_ready: Whether new requests are welcome.
        read_only: Why live writes are refused; None when they are taken.
    """

    def __init__(
        self,
        state: ServingState,
        *,
        journal: Journal | None = None,
        read_only: str | None = None,
    ) -> None:
        """Serve ``state`` and replay ``journal`` over it."""
        self.metrics = Metrics()
        self.read_only = read_only
        self._entries = LiveEntries(journal)
        self._batcher = MicroBatcher(self.metrics.encoded.observe)
        self._writing = asyncio.Lock()
        self._sources = {
            name: self.metrics.answers.labels(name)
            for name in ("precomputed", "searched", "exact", "encoded")
        }
        self.is_ready = False
        self.view = View(state, self._overlay(state))
        self._show()

    def set_ready(self, ready: bool) -> None:
        """Whether ``/health/ready`` says yes."""
        self.is_ready = ready
        self.metrics.ready.set(int(ready))

    def similar(self, item_id: str, wanted: Wanted) -> bytes:
        """Neighbours of a known item, as JSON.

        Raises:
            RequestError: The item is unknown, ``k`` out of range, or the filter's column unknown.
        """
        view = self.view
        key = (item_id, wanted.k)
        if wanted.is_plain:
            ready = view.ready.get(key)
            if ready is not None:
                self._sources["precomputed"].inc()
                return ready
        made = self._answer_item(view, item_id, wanted)
        body = json_bytes(made)
        if wanted.is_plain and made["source"] == "precomputed":
            view.remember(key, body)
        return body

    async def similar_many(
        self,
        wanted: Wanted,
        *,
        item_ids: Sequence[str] = (),
        vectors: np.ndarray | None = None,
        items: Sequence[Mapping[str, Any]] = (),
    ) -> bytes:
        """Neighbours of many ids, vectors (float32 ``[B, D]``) or cleaned raw items, as JSON.

        An unknown id spoils its own result only.

        Raises:
            RequestError: ``k`` or the filter is wrong, or an item cannot be encoded.
        """
        view = self.view
        _check(view, wanted)
        encoded = await self._batcher.encode(view.state, items) if items else []

        def work() -> list[dict[str, Any]]:
            queries = [Query(vector) for vector in vectors] if vectors is not None else []
            return [
                *(self._result(view, item_id, wanted) for item_id in item_ids),
                *(self._answer(view, query, wanted, item_id=None) for query in queries),
                *(self._answer_live(view, item, wanted) for item in encoded),
            ]

        size = len(item_ids) + len(items) + (0 if vectors is None else len(vectors))
        # A batch would hold up the event loop; a hop to a thread costs more than one search.
        results = work() if size == 1 else await asyncio.to_thread(work)
        return json_bytes({"bundle": view.state.digest, "results": results})

    async def embed(self, items: Sequence[Mapping[str, Any]]) -> bytes:
        """Vectors of cleaned raw items, as JSON.

        Raises:
            RequestError: An item cannot be encoded.
        """
        state = self.view.state
        encoded = await self._batcher.encode(state, items)
        vectors = [item.vector.tolist() for item in encoded]
        return json_bytes({"bundle": state.digest, "width": state.width, "vectors": vectors})

    async def put(self, item_id: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Insert or replace an item by a cleaned raw item; visible when this returns.

        Raises:
            RequestError: Writes are not taken, the overlay is full, or it cannot be encoded.
        """
        self._check_writable()
        state = self.view.state
        live = (await self._batcher.encode(state, [item]))[0]
        async with self._writing:
            view = self.view
            if view.state is not state:
                live = (await self._batcher.encode(view.state, [item]))[0]
            is_new = view.slot(item_id) is None
            if item_id not in view.overlay.items and len(view.overlay.items) >= MAX_LIVE_ITEMS:
                raise RequestError(
                    409,
                    "overlay_full",
                    f"{MAX_LIVE_ITEMS} live items are held already: publish a bundle with them",
                )
            await self._entries.record(item_id, dict(item))
            items = {name: i for name, i in view.overlay.items.items() if name != item_id}
            items[item_id] = live
            self._replace_overlay(items, view.overlay.deleted - {item_id})
        self.metrics.writes.labels("put").inc()
        return {"item_id": item_id, "bundle": view.state.digest, "created": is_new}

    async def delete(self, item_id: str) -> dict[str, Any]:
        """Hide an item at once.

        Raises:
            RequestError: Writes are not taken, or the item is unknown.
        """
        self._check_writable()
        async with self._writing:
            view = self.view
            if view.slot(item_id) is None:
                raise unknown_item(item_id)
            await self._entries.record(item_id, None)
            items = {name: i for name, i in view.overlay.items.items() if name != item_id}
            self._replace_overlay(items, view.overlay.deleted | {item_id})
        self.metrics.writes.labels("delete").inc()
        return {"item_id": item_id, "bundle": view.state.digest, "deleted": True}

    async def swap(self, state: ServingState) -> None:
        """Serve ``state`` from now on; requests in flight finish on what they began with.

        Live items are encoded again by the new tower first; writes wait for that moment.
        """
        async with self._writing:
            overlay = await asyncio.to_thread(self._overlay, state)
            self.view = View(state, overlay)
        self.metrics.swaps.inc()
        self._show()

    def schema(self) -> ItemSchema:
        """What a raw item may look like under the bundle in service."""
        return ItemSchema.of(self.view.state)

    def close(self) -> None:
        """Release the journal and the encoding thread."""
        self._batcher.close()
        self._entries.close()

    def _answer_item(self, view: View, item_id: str, wanted: Wanted) -> dict[str, Any]:
        _check(view, wanted)
        slot = view.slot(item_id)
        if slot is None:
            raise unknown_item(item_id)
        query = query_of(view, slot, with_parts=wanted.explain)
        return self._answer(view, query, wanted, item_id=item_id)

    def _result(self, view: View, item_id: str, wanted: Wanted) -> dict[str, Any]:
        try:
            return self._answer_item(view, item_id, wanted)
        except RequestError as error:
            fault = {"code": error.code, "message": error.message}
            return {"item_id": item_id, "error": fault}

    def _answer_live(self, view: View, item: LiveItem, wanted: Wanted) -> dict[str, Any]:
        item_id = item.raw.get("item_id")
        slot = view.slot(item_id) if item_id is not None else None
        query = Query(item.vector, item.parts, slot)
        # An item that came with its content is ranked by it, never by a stored list.
        return self._answer(view, query, wanted, item_id=item_id, source="encoded")

    def _answer(
        self,
        view: View,
        query: Query,
        wanted: Wanted,
        *,
        item_id: str | None,
        source: str | None = None,
    ) -> dict[str, Any]:
        ranked = rank(view, query, k=wanted.k, where=wanted.where, stored=source is None)
        source = source or ranked.source
        self._sources[source].inc()
        return answer(view, query, ranked, wanted, item_id=item_id, source=source)

    def _check_writable(self) -> None:
        if self.read_only is not None:
            raise RequestError(409, "read_only", self.read_only)

    def _replace_overlay(self, items: dict[str, LiveItem], deleted: frozenset[str]) -> None:
        state = self.view.state
        positions = state.catalogue.positions
        overlay = Overlay.build(items, deleted, positions=positions, width=state.width)
        self.view = View(state, overlay)
        self.metrics.live_items.set(len(items))

    def _overlay(self, state: ServingState) -> Overlay:
        overlay, missed = self._entries.overlay(state)
        self.metrics.live_items.set(len(overlay.items))
        self.metrics.not_encodable.set(missed)
        return overlay

    def _show(self) -> None:
        state = self.view.state
        self.metrics.show_bundle(state)
        log.info(
            event(
                "serving",
                bundle=state.digest,
                model=state.origin.model or "-",
                version=state.origin.version or "-",
                items=state.count,
                live=len(self.view.overlay.items),
            )
        )


def _check(view: View, wanted: Wanted) -> None:
    check_k(wanted.k, max(1, min(MAX_K, view.count - 1)))
    view.state.attributes.check(wanted.where)
