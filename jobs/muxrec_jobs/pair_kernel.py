"""Pairs of one bucket of users, counted and summed in numpy before Spark shuffles anything.

This module runs on executors: it imports numpy and pyarrow alone. Weights are whole multiples of
``2**-30``, so that their sums do not depend on the order in which Spark adds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FIXED_POINT = 2**30
CHUNK_PAIRS = 2**23
"""Pairs that one pre-aggregation holds; more costs memory, fewer sends more rows to the shuffle."""

Ints = npt.NDArray[np.int64]


class Window(NamedTuple):
    """Which events of a user pair up, and what they weigh.

    Attributes:
        events: Largest distance in positions.
        seconds: Largest distance in time.
        max_user_events: A user's latest events that are used.
        discount: ``inverse_log``, ``inverse`` or ``none``, see ``muxrec.recipe.model.Pairs``.
    """

    events: int
    seconds: float
    max_user_events: int
    discount: str


class Ordered(NamedTuple):
    """Events in order of (split, user, time, item).

    Attributes:
        split: Code of the slice, int64 ``[N]``.
        group: Number of the (split, user) group, rising from 0, int64 ``[N]``.
        time: Seconds, int64 ``[N]``.
        code: Number of the item among ``items``, int64 ``[N]``.
        items: Distinct item keys, int64 ``[C]``, rising.
        sizes: Events per group, int64 ``[G]``.
    """

    split: Ints
    group: Ints
    time: Ints
    code: Ints
    items: Ints
    sizes: Ints


def partial_pairs(batches: Iterator[pa.RecordBatch], window: Window) -> Iterator[pa.RecordBatch]:
    """Partial sums of one bucket, for ``mapInArrow``.

    Args:
        batches: Batches of ``schemas.SLICED_EVENT``; all events of a user are in one bucket.
        window: The window.

    Yields:
        Batches of ``schemas.PARTIAL_PAIR``: per slice and unordered pair the summed fixed-point
        weight and the number of users, every user once; rows with ``low == high`` are an item's own
        sums. Nothing for an empty bucket.
    """
    held = [batch for batch in batches if batch.num_rows]
    if not held:
        return
    table = pa.Table.from_batches(held)
    names = table["split"].combine_chunks().dictionary_encode()
    split = names.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    columns = [table[name].to_numpy() for name in ("user_key", "timestamp", "item_key")]
    events = ordered(split, *columns, max_user_events=window.max_user_events)
    for start, end in chunks(events, window.events):
        low, high, weight, count = chunk_sums(events, start, end, window)
        name = names.dictionary[int(events.split[start])].as_py()
        yield pa.RecordBatch.from_arrays(
            [pa.array([name] * len(low), pa.string()), *map(pa.array, (low, high, weight, count))],
            names=["split", "low", "high", "fixed_weight", "count"],
        )


def ordered(split: Ints, user: Ints, time: Ints, item: Ints, *, max_user_events: int) -> Ordered:
    """Events sorted, equal times by item key, and each user's latest ``max_user_events`` kept."""
    order = np.lexsort((item, time, user, split))
    split, user, time, item = split[order], user[order], time[order], item[order]
    changes = (np.diff(split, prepend=-1) != 0) | (np.diff(user, prepend=0) != 0)
    changes[:1] = True
    starts = np.flatnonzero(changes)
    ends = np.append(starts[1:], len(user))
    group = np.cumsum(changes) - 1
    kept = np.arange(len(user)) >= ends[group] - max_user_events
    items, code = np.unique(item[kept], return_inverse=True)
    sizes = np.minimum(ends - starts, max_user_events)
    return Ordered(split[kept], group[kept], time[kept], code, items, sizes)


def chunks(events: Ordered, window_events: int) -> Iterator[tuple[int, int]]:
    """Ranges of events of whole groups, one slice each, of about ``CHUNK_PAIRS`` pairs."""
    most = max(1, CHUNK_PAIRS // (window_events + 1))
    ends = np.cumsum(events.sizes)
    slices = events.split[ends - 1]
    start = 0
    for at, end in enumerate(ends):
        is_last = at + 1 == len(ends) or slices[at + 1] != slices[at]
        if is_last or end - start >= most:
            yield int(start), int(end)
            start = end


def chunk_sums(
    events: Ordered, start: int, end: int, window: Window
) -> tuple[Ints, Ints, Ints, Ints]:
    """``(low, high, weight, count)`` of the events in ``[start, end)``, each int64, by pair."""
    width = len(events.items)
    keys, groups = _pair_keys(events, start, end, window)
    keys, groups = _once_per_user(keys, groups, events, start, end)
    levels, level = np.unique(events.sizes, return_inverse=True)
    bits = max(1, int(len(levels) - 1).bit_length())
    if width * width << bits >= 2**63:
        raise OverflowError(f"{width} items in one bucket: use more buckets")
    # Sorting key and weight level packed in one word is several times faster than an argsort.
    packed = (keys << bits) | level[groups]
    packed.sort()
    keys = packed >> bits
    weights = fixed_weights(levels, window.discount)[packed & ((1 << bits) - 1)]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    count = np.diff(np.append(first, len(keys)))
    low, high = np.divmod(keys[first], width)
    return events.items[low], events.items[high], np.add.reduceat(weights, first), count


def fixed_weights(sizes: Ints, discount: str) -> Ints:
    """Weight of a user with ``sizes`` events as a whole multiple of ``2**-30``, int64."""
    n = sizes.astype(np.float64)
    divisor = {"inverse_log": np.log2(1 + n), "inverse": n, "none": np.ones_like(n)}[discount]
    return np.rint(FIXED_POINT / divisor).astype(np.int64)


def _pair_keys(events: Ordered, start: int, end: int, window: Window) -> tuple[Ints, Ints]:
    """Packed (low, high) item codes and the group of every pair, items' own rows first."""
    code, group, time = (a[start:end] for a in (events.code, events.group, events.time))
    width = len(events.items)
    keys, groups = [code * width + code], [group]
    for shift in range(1, min(window.events, end - start - 1) + 1):
        before, after = code[:-shift], code[shift:]
        pairs = (group[:-shift] == group[shift:]) & (before != after)
        pairs &= time[shift:] - time[:-shift] <= window.seconds
        a, b = before[pairs], after[pairs]
        keys.append(np.minimum(a, b) * width + np.maximum(a, b))
        groups.append(group[:-shift][pairs])
    return np.concatenate(keys), np.concatenate(groups)


def _once_per_user(
    keys: Ints, groups: Ints, events: Ordered, start: int, end: int
) -> tuple[Ints, Ints]:
    """Pairs with repeats removed; only users who met an item twice can have any."""
    width = len(events.items)
    met = np.sort(events.group[start:end] * width + events.code[start:end])
    again = np.unique(met[1:][met[1:] == met[:-1]] // width)
    if not len(again):
        return keys, groups
    is_again = np.isin(groups, again)
    both = np.unique(np.stack([groups[is_again], keys[is_again]]), axis=1)
    return (
        np.concatenate([keys[~is_again], both[1]]),
        np.concatenate([groups[~is_again], both[0]]),
    )
