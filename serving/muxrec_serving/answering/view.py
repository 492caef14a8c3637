"""One version of everything: a bundle and the overlay over it. A request reads exactly one view."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from muxrec_serving.answering.state import ServingState
from muxrec_serving.live.overlay import LiveItem, Overlay

Float32Array = npt.NDArray[np.float32]
MAX_READY = 65_536
"""Answers kept as bytes; about 50 MB at ten neighbours each."""


@dataclass(frozen=True)
class View:
    """A bundle, an overlay and the answers already made from them.

    Items are numbered by *slot*: bundle positions first, then live items.

    Attributes:
        state: The bundle.
        overlay: Live items and deletions.
        ready: ``(item id, k)`` -> finished answer.
    """

    state: ServingState
    overlay: Overlay
    ready: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def slot(self, item_id: str) -> int | None:
        """Slot of the item, None when it is unknown or deleted."""
        overlay = self.overlay
        if not overlay.is_empty:
            if item_id in overlay.deleted:
                return None
            live = self._live_slots.get(item_id)
            if live is not None:
                return live
        return self.state.catalogue.positions.get(item_id)

    @cached_property
    def count(self) -> int:
        """Items that can be returned."""
        return self.state.count - self.overlay.hidden_count + len(self.overlay.items)

    def live(self, slot: int) -> LiveItem | None:
        """The live item in ``slot``; None for an item of the bundle."""
        return self._live_items[slot - self.state.count] if slot >= self.state.count else None

    def item_id(self, slot: int) -> str:
        """Item id of ``slot``."""
        count = self.state.count
        return self.state.catalogue.item_ids[slot] if slot < count else self._live_ids[slot - count]

    def item_ids(self, slots: list[int]) -> list[str]:
        """Item id of each slot."""
        count, stored, live = self.state.count, self.state.catalogue.item_ids, self._live_ids
        return [stored[slot] if slot < count else live[slot - count] for slot in slots]

    def vector(self, slot: int) -> Float32Array:
        """Unit vector of ``slot``, float32 ``[D]``."""
        live = self.live(slot)
        return self.state.vectors[slot] if live is None else live.vector

    def parts(self, slot: int) -> Float32Array:
        """What each modality gave to the vector of ``slot``, float32 ``[M, D]``."""
        live = self.live(slot)
        part = self.state.bundle.parts[slot] if live is None else live.parts
        return part.astype(np.float32, copy=False)

    def fields(self, slot: int) -> dict[str, Any]:
        """Display fields of ``slot``."""
        live = self.live(slot)
        if live is None:
            return self.state.catalogue.fields(slot)
        return {name: live.raw.get(name) for name in self.state.catalogue.display}

    def title(self, slot: int) -> str:
        """Title of ``slot``, its id where it has none."""
        live = self.live(slot)
        if live is None:
            return self.state.catalogue.titles[slot]
        title = live.raw.get(self.state.catalogue.title_column or "")
        return str(title) if title else self.item_id(slot)

    def picture(self, slot: int) -> bytes | None:
        """Picture file of ``slot``; None where it has none."""
        live = self.live(slot)
        if live is None:
            return self.state.bundle.image(slot)
        found = (value for value in live.raw.values() if isinstance(value, bytes))
        return next(found, None)

    def remember(self, key: tuple[str, int], answer: bytes) -> None:
        """Keep a finished answer; when too many are kept, begin again."""
        if len(self.ready) >= MAX_READY:
            self.ready.clear()
        self.ready[key] = answer

    @cached_property
    def _live_ids(self) -> list[str]:
        return list(self.overlay.items)

    @cached_property
    def _live_items(self) -> list[LiveItem]:
        return list(self.overlay.items.values())

    @cached_property
    def _live_slots(self) -> dict[str, int]:
        return {item_id: self.state.count + row for row, item_id in enumerate(self.overlay.items)}
