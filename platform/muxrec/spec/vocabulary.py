"""Exact id-to-row maps for collisionless tables, in a form that every engine can read.

A vocabulary is a bucketed key table: ``keys`` and ``rows``, both ``[buckets, slots]``. An id
belongs to the bucket that the common hash gives it and sits in one of that bucket's slots, so a
lookup is one hash, one gather and one comparison: plain tensor arithmetic that ONNX can run too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muxrec.spec.hashing import Int64Array, hash_ids, probe_seed, reduce_to_rows

EMPTY = -1
"""Row number in slots that hold no id, and the answer for an unknown id."""


@dataclass(frozen=True)
class Vocabulary:
    """Known ids of one feature and the row of each.

    Attributes:
        feature: Feature name, the salt of the bucket hash.
        keys: Ids, int64 ``[buckets, slots]``; meaningless where ``rows`` is ``EMPTY``.
        rows: Row of each key, int64 ``[buckets, slots]``, ``EMPTY`` in free slots.
        size: How many ids are known; rows are 0 .. size - 1 in ascending order of id.
    """

    feature: str
    keys: Int64Array
    rows: Int64Array
    size: int

    @property
    def seed(self) -> int:
        """Signed 64-bit seed of the bucket hash."""
        return probe_seed(self.feature, 0)

    def lookup(self, ids: npt.ArrayLike) -> Int64Array:
        """Row of each id, int64, the shape of ``ids``; ``EMPTY`` (-1) where the id is unknown."""
        wanted = np.asarray(ids, dtype=np.int64)
        buckets = reduce_to_rows(hash_ids(wanted, self.seed), len(self.keys))
        rows = self.rows[buckets]
        hit = (self.keys[buckets] == wanted[..., None]) & (rows != EMPTY)
        return np.where(hit, rows + 1, 0).sum(axis=-1) - 1

    def ids(self) -> Int64Array:
        """The known ids by row, int64 ``[size]``."""
        used = self.rows != EMPTY
        out = np.empty(self.size, dtype=np.int64)
        out[self.rows[used]] = self.keys[used]
        return out


def build_vocabulary(feature: str, ids: npt.ArrayLike) -> Vocabulary:
    """Vocabulary of the distinct ``ids``; rows follow ascending id, whatever the input order.

    Args:
        feature: Feature name.
        ids: Raw ids, int64, any shape, duplicates allowed. Empty gives a vocabulary of size 0.
    """
    known = np.unique(np.asarray(ids, dtype=np.int64))
    buckets = max(1, len(known) // 2)
    home = reduce_to_rows(hash_ids(known, probe_seed(feature, 0)), buckets)
    order = np.argsort(home, kind="stable")
    counts = np.bincount(home, minlength=buckets)
    starts = np.cumsum(counts) - counts
    place = np.arange(len(known)) - starts[home[order]]
    shape = (buckets, max(1, int(counts.max(initial=0))))
    keys = np.zeros(shape, dtype=np.int64)
    rows = np.full(shape, EMPTY, dtype=np.int64)
    keys[home[order], place] = known[order]
    rows[home[order], place] = order
    return Vocabulary(feature, keys, rows, len(known))
