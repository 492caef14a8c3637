"""The common hash in place on the CPU: what a training step runs on every id.

The same bits as :mod:`muxrec.tables.hash_torch`. A step of a small batch is paid in calls, not in
bytes: twenty in-place numpy calls on 1,280 ids take a quarter of the time of torch's forty.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from muxrec.spec.hashing import P1, P2, P3, P4, P5

Words = npt.NDArray[np.uint64]

_P1, _P2, _P3, _P4 = (np.uint64(prime) for prime in (P1, P2, P3, P4))
_P5_PLUS_8 = np.uint64((P5 + 8) % 2**64)
_27, _29, _31, _32, _33, _37 = (np.uint64(bits) for bits in (27, 29, 31, 32, 33, 37))


def start_seeds(seeds: npt.NDArray[np.int64]) -> Words:
    """What :func:`hash_rows_in_place` starts from: seeds plus a constant, uint64, same shape."""
    return seeds.view(np.uint64) + _P5_PLUS_8


def hash_rows_in_place(ids: Words, starts: Words, rows: int) -> npt.NDArray[np.int64]:
    """The row of each id, in the memory of ``starts``.

    Args:
        ids: Raw ids read as unsigned words, uint64 ``[N]``.
        starts: Output of :func:`start_seeds` for each id, uint64 ``[N]``; becomes the result.
        rows: Rows of the table, in ``[1, 2**31)``.

    Returns:
        Rows, int64 ``[N]`` in ``[0, rows)``, a view of ``starts``.
    """
    h = starts
    lane = ids * _P2
    shifted = lane >> _33
    lane <<= _31
    lane |= shifted
    lane *= _P1
    h ^= lane
    np.right_shift(h, _37, out=shifted)
    h <<= _27
    h |= shifted
    h *= _P1
    h += _P4
    h ^= np.right_shift(h, _33, out=shifted)
    h *= _P2
    h ^= np.right_shift(h, _29, out=shifted)
    h *= _P3
    # The last mixing step, h ^= h >> 32, leaves the upper half as it is, and only that half counts.
    h >>= _32
    h *= np.uint64(rows)
    h >>= _32
    return h.view(np.int64)
