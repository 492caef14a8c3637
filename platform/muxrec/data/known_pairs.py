"""The known pairs of the training slice, asked for one batch at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from muxrec.data.pairs import PairBatch

_SMALLEST = 1e-6
"""A known pair keeps a weight above 0 whatever its score, or it would turn into a negative."""


class KnownPairs:
    """Which items of a batch are known partners of which.

    A pair is known in both directions, whichever was mined: ``top_n`` cuts the list of a popular
    item, but the items that name it are still no negatives of it.

    Args:
        pairs: The training pairs as positions; repeats keep the largest score.
        catalogue: Number of items C.
    """

    def __init__(self, pairs: PairBatch, catalogue: int) -> None:
        a = np.concatenate([pairs.a, pairs.b])
        b = np.concatenate([pairs.b, pairs.a])
        score = np.concatenate([pairs.score, pairs.score])
        order = np.lexsort((-score, b, a))
        a, b, score = a[order], b[order], score[order]
        first = np.ones(len(a), dtype=bool)
        first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
        first &= a != b
        self._partners, self._scores = b[first], np.maximum(score[first], _SMALLEST)
        counts = np.bincount(a[first], minlength=catalogue)
        self._offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._place = np.full(catalogue, -1, dtype=np.int64)
        draws = np.bincount(np.concatenate([pairs.a, pairs.b]), minlength=catalogue)
        self.frequency = draws / max(1, len(pairs.a))
        """Expected appearances of each item per drawn pair, float64 ``[C]``, on either side."""

    def among(
        self, items: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Known pairs inside a batch, ``(row, column, score)`` by place in ``items``.

        Args:
            items: Distinct positions, int64 ``[U]``.
        """
        self._place[items] = np.arange(len(items))
        starts, stops = self._offsets[items], self._offsets[items + 1]
        lengths = stops - starts
        rows = np.repeat(np.arange(len(items)), lengths)
        ends = np.cumsum(lengths)
        at = np.arange(len(rows)) - np.repeat(ends - lengths, lengths) + np.repeat(starts, lengths)
        columns = self._place[self._partners[at]]
        self._place[items] = -1
        inside = columns >= 0
        return rows[inside], columns[inside], self._scores[at[inside]]
