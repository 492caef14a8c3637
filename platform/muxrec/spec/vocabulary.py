"""Exact id-to-row maps for collisionless tables, in a form that every engine can read.

The known ids lie in one array, sorted by the bucket that the common hash gives them, and a second
array says where each bucket begins. A lookup is one hash, one short run of comparisons and one
gather: plain tensor arithmetic that ONNX can run too, in about 14 bytes per id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muxrec.spec.hashing import Int64Array, hash_ids, probe_seed, reduce_to_rows

Int32Array = npt.NDArray[np.int32]

EMPTY = -1
"""Row number of an unknown id."""
IDS_PER_BUCKET = 2


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Known ids of one feature, the row of each, and how often it was seen.

    Attributes:
        feature: Feature name, the salt of the bucket hash.
        keys: The n ids in the order of their buckets, int64 ``[n]``.
        starts: Where each bucket begins in ``keys``, int32 ``[buckets + 1]``.
        rows: Row of each key, int32 ``[n]``: 0 .. n - 1, the most frequent id first, ids of the
            same count in ascending order.
        counts: How often the id of each row was seen, int64 ``[n]``, falling. Not part of lookups.
    """

    feature: str
    keys: Int64Array
    starts: Int32Array
    rows: Int32Array
    counts: Int64Array

    @property
    def size(self) -> int:
        """How many ids are known."""
        return len(self.keys)

    @property
    def seed(self) -> int:
        """Signed 64-bit seed of the bucket hash."""
        return probe_seed(self.feature, 0)

    @property
    def longest(self) -> int:
        """Ids in the fullest bucket, at least 1: the comparisons of a lookup."""
        return max(1, int(np.diff(self.starts).max(initial=0)))

    @property
    def lookup_bytes(self) -> int:
        """Bytes of what a lookup reads: keys, bucket starts and rows."""
        return self.keys.nbytes + self.starts.nbytes + self.rows.nbytes

    def lookup(self, ids: npt.ArrayLike) -> Int64Array:
        """Row of each id, int64, the shape of ``ids``; ``EMPTY`` (-1) where the id is unknown."""
        wanted = np.asarray(ids, dtype=np.int64)
        if self.size == 0:
            return np.full(wanted.shape, EMPTY, dtype=np.int64)
        buckets = reduce_to_rows(hash_ids(wanted, self.seed), len(self.starts) - 1)
        found = np.full(wanted.shape, EMPTY, dtype=np.int64)
        for step in range(self.longest):
            place = self.starts[buckets].astype(np.int64) + step
            safe = np.minimum(place, self.size - 1)
            hit = (place < self.starts[buckets + 1]) & (self.keys[safe] == wanted)
            found = np.where(hit, self.rows[safe], found)
        return found

    def ids(self) -> Int64Array:
        """The known ids by row, int64 ``[n]``."""
        out = np.empty(self.size, dtype=np.int64)
        out[self.rows] = self.keys
        return out

    def head(self, size: int) -> Vocabulary:
        """Vocabulary of the ``size`` most frequent ids, with the same rows."""
        return build_vocabulary(self.feature, self.ids()[:size], counts=self.counts[:size])


def build_vocabulary(
    feature: str, ids: npt.ArrayLike, *, counts: npt.ArrayLike | None = None
) -> Vocabulary:
    """Vocabulary of the distinct ``ids``, whatever their order.

    Args:
        feature: Feature name.
        ids: Raw ids, int64, any shape, duplicates allowed. Empty gives a vocabulary of size 0.
        counts: How often each of ``ids`` was seen, at least 0, the shape of ``ids``; None for once.
            An id's counts are added up.
    """
    given = np.asarray(ids, dtype=np.int64).ravel()
    weights = np.ones(len(given)) if counts is None else np.asarray(counts, dtype=float).ravel()
    known, inverse = np.unique(given, return_inverse=True)
    seen = np.bincount(inverse, weights=weights, minlength=len(known)).astype(np.int64)
    order = np.argsort(-seen, kind="stable")
    known, seen = known[order], seen[order]
    buckets = max(1, len(known) // IDS_PER_BUCKET)
    home = reduce_to_rows(hash_ids(known, probe_seed(feature, 0)), buckets)
    rows = np.lexsort((known, home))
    starts = np.zeros(buckets + 1, dtype=np.int32)
    np.cumsum(np.bincount(home, minlength=buckets), out=starts[1:])
    return Vocabulary(feature, known[rows], starts, rows.astype(np.int32), seen)
