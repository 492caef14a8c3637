"""Raw items to vectors, many requests in one run of the tower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from muxrec.errors import DataError
from muxrec.features.arrays import ItemArrays
from muxrec_serving.answering.state import ServingState
from muxrec_serving.errors import RequestError, invalid
from muxrec_serving.live.overlay import LiveItem, RawItem

WINDOW_S = 0.0015
MAX_RUN = 32
MIN_NORM = 0.5
"""Vectors are unit; the tower gives the zero vector for an item that it knows nothing of."""
_BAD_VALUES = (DataError, ValueError, TypeError, OverflowError)

Encoded = LiveItem | RequestError


class MicroBatcher:
    """Collects raw items for up to 1.5 ms or 32 of them and encodes them in one run.

    One thread encodes, off the event loop: onnxruntime releases the interpreter lock, and one run
    of 32 items costs a seventh of 32 runs.
    """

    def __init__(self, observe: Callable[[int], None]) -> None:
        """``observe`` is told the number of items of every run."""
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._waiting: list[tuple[ServingState, RawItem, asyncio.Future[Encoded]]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def encode(self, state: ServingState, items: Sequence[RawItem]) -> list[LiveItem]:
        """Vectors of ``items`` under the bundle of ``state``, in order.

        Raises:
            RequestError: An item holds nothing to encode, or a value that its feature cannot read.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Encoded]] = [loop.create_future() for _ in items]
        self._waiting += [(state, i, f) for i, f in zip(items, futures, strict=True)]
        if len(self._waiting) >= MAX_RUN:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(WINDOW_S, self._flush)
        encoded = await asyncio.gather(*futures)
        for number, result in enumerate(encoded):
            if isinstance(result, RequestError):
                place = f"item {number}: " if len(items) > 1 else ""
                raise RequestError(result.status, result.code, place + result.message)
        return [result for result in encoded if isinstance(result, LiveItem)]

    def close(self) -> None:
        """Let the thread end; nothing may be encoded afterwards."""
        self._thread.shutdown(wait=False)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        by_state: dict[int, list[Any]] = {}
        for entry in waiting:
            by_state.setdefault(id(entry[0]), []).append(entry)
        for entries in by_state.values():
            for start in range(0, len(entries), MAX_RUN):
                self._start(entries[start : start + MAX_RUN])

    def _start(self, entries: list[Any]) -> None:
        self._observe(len(entries))
        items = [item for _, item, _ in entries]
        run = asyncio.get_running_loop().run_in_executor(
            self._thread, encode_items, entries[0][0], items
        )
        run.add_done_callback(lambda done: _deliver(done, [future for *_, future in entries]))


def _deliver(done: asyncio.Future[list[Encoded]], futures: list[asyncio.Future[Encoded]]) -> None:
    error = done.exception()
    for number, future in enumerate(futures):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result()[number])


def encode_items(state: ServingState, items: Sequence[RawItem]) -> list[Encoded]:
    """A vector, or what is wrong, for every raw item.

    When one item spoils the run, the items are encoded one by one: nobody pays for a neighbour.
    """
    try:
        return _run(state, items)
    except _BAD_VALUES as error:
        if len(items) == 1:
            return [invalid(f"the item cannot be encoded: {error}", code="bad_item")]
        return [encode_items(state, [item])[0] for item in items]


def _run(state: ServingState, items: Sequence[RawItem]) -> list[Encoded]:
    arrays = state.encoder.encode_items(items)
    vectors, parts = state.tower.encode(arrays)
    usable = _has_content(arrays) & (np.linalg.norm(vectors, axis=1) > MIN_NORM)
    needed = ", ".join(sorted(state.encoder.column_names))
    nothing = invalid(f"the item has nothing to encode: give one of {needed}", code="bad_item")
    return [
        LiveItem(item, vectors[row].copy(), parts[row].copy()) if usable[row] else nothing
        for row, item in enumerate(items)
    ]


def _has_content(arrays: ItemArrays) -> np.ndarray:
    has = np.zeros(len(arrays), dtype=bool)
    for bags in arrays.sparse.values():
        has |= np.diff(bags.offsets) > 0
    for dense in arrays.dense.values():
        has |= dense.present
    return has
