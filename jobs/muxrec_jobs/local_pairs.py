"""Pair mining in one process: the oracle of the Spark job, and enough for a small catalogue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muxrec.data.snapshot import PAIR_SCHEMA
from muxrec.recipe.model import Pairs
from muxrec_jobs.pair_kernel import FIXED_POINT, fixed_weights
from muxrec_jobs.split import DAY

Ints = npt.NDArray[np.int64]


def mine_pairs(
    user: npt.ArrayLike,
    time: npt.ArrayLike,
    item: npt.ArrayLike,
    settings: Pairs,
    *,
    weight: npt.ArrayLike | None = None,
) -> pa.Table:
    """The pairs of one slice of events, bit-equal to the Spark job's.

    Args:
        user: User keys, int64 ``[N]``, any order.
        time: Seconds, int64 ``[N]``.
        item: Item keys, int64 ``[N]``.
        settings: Window, discount, scale and limits.
        weight: Event weights, float64 ``[N]``, compared with ``settings.min_weight``; None for 1.

    Returns:
        ``PAIR_SCHEMA``, both directions, sorted by (item_a, score falling, item_b); empty for no
        events.
    """
    columns = [np.asarray(column, dtype=np.int64) for column in (user, time, item)]
    if weight is not None:
        kept = np.asarray(weight) >= settings.min_weight
        columns = [column[kept] for column in columns]
    if not len(columns[0]):
        return PAIR_SCHEMA.empty_table()
    met, items = _meetings(columns[0], columns[1], columns[2], settings)
    return _best(*_sums(met, settings), items, settings)


class _Meetings(NamedTuple):
    """One row per user and unordered pair of item numbers, ``low == high`` for an item met.

    Attributes:
        user: Number of the user, int64 ``[M]``.
        pair: ``low * width + high``, int64 ``[M]``, rising.
        sizes: Events per user, int64 ``[U]``.
        width: Number of items.
    """

    user: Ints
    pair: Ints
    sizes: Ints
    width: int


def _meetings(user: Ints, time: Ints, item: Ints, settings: Pairs) -> tuple[_Meetings, Ints]:
    order = np.lexsort((item, time, user))
    users, user = np.unique(user[order], return_inverse=True)
    time, item = time[order], item[order]
    last = np.searchsorted(user, np.arange(len(users)), side="right")
    latest = last[user] - np.arange(len(user)) <= settings.max_user_events
    user, time, item = user[latest], time[latest], item[latest]
    items, code = np.unique(item, return_inverse=True)
    width = len(items)
    rows = [np.stack([user, code * width + code])]
    for shift in range(1, min(settings.window_events, len(user) - 1) + 1):
        near = (user[shift:] == user[:-shift]) & (code[shift:] != code[:-shift])
        near &= time[shift:] - time[:-shift] <= settings.window_days * DAY
        pair = np.sort(np.stack([code[:-shift][near], code[shift:][near]]), axis=0)
        rows.append(np.stack([user[:-shift][near], pair[0] * width + pair[1]]))
    both = np.concatenate(rows, axis=1)
    both = both[:, np.lexsort((both[0], both[1]))]
    is_new = np.ones(both.shape[1], dtype=bool)
    is_new[1:] = (np.diff(both) != 0).any(axis=0)
    return _Meetings(both[0, is_new], both[1, is_new], np.bincount(user), width), items


def _sums(met: _Meetings, settings: Pairs) -> tuple[Ints, Ints, Ints, Ints]:
    """``(low, high, fixed weight, users)`` per pair; the meetings come sorted by pair."""
    weights = fixed_weights(met.sizes, settings.user_discount)[met.user]
    pairs, first, count = np.unique(met.pair, return_index=True, return_counts=True)
    low, high = np.divmod(pairs, met.width)
    return low, high, np.add.reduceat(weights, first), count


def _best(
    low: Ints, high: Ints, fixed: Ints, count: Ints, items: Ints, settings: Pairs
) -> pa.Table:
    own = np.zeros(len(items), dtype=np.int64)
    is_own = low == high
    own[low[is_own]] = fixed[is_own]
    kept = ~is_own & (count >= settings.min_count)
    low, high, fixed, count = low[kept], high[kept], fixed[kept], count[kept]
    score = fixed / FIXED_POINT
    if settings.scale == "cosine":
        score = fixed / np.sqrt(own[low].astype(np.float64) * own[high].astype(np.float64))
    a, b = np.concatenate([low, high]), np.concatenate([high, low])
    fixed, count, score = np.tile(fixed, 2), np.tile(count, 2), np.tile(score, 2)
    order = np.lexsort((b, -score, a))
    a, b, fixed, count, score = a[order], b[order], fixed[order], count[order], score[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a, side="left")
    top = rank < settings.top_n
    columns = [items[a[top]], items[b[top]], count[top], fixed[top] / FIXED_POINT, score[top]]
    return pa.table(columns, schema=PAIR_SCHEMA)
