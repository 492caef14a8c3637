"""XXH64 of 64-bit ids as a Triton device function, bit-equal with ``reference``.

    lane = rotl(id * P2, 31) * P1
    h    = rotl((seed + P5 + 8) ^ lane, 27) * P1 + P4
    h    = (h ^ h >> 33) * P2;  h = (h ^ h >> 29) * P3
    row  = ((h >> 32) * rows) >> 32

Everything is uint64: products wrap and shifts are logical. The last mixing step of XXH64,
``h ^= h >> 32``, leaves the upper half as it is, and a row reads only that half, so it is left out.
"""

from __future__ import annotations

import triton
import triton.language as tl

P1 = tl.constexpr(0x9E3779B185EBCA87)
P2 = tl.constexpr(0xC2B2AE3D27D4EB4F)
P3 = tl.constexpr(0x165667B19E3779F9)
P4 = tl.constexpr(0x85EBCA77C2B2AE63)
P5_PLUS_8 = tl.constexpr(0x27D4EB2F165667C5 + 8)


@triton.jit
def rotate_left(value, BITS: tl.constexpr):
    return (value << BITS) | (value >> (64 - BITS))


@triton.jit
def hash_ids(ids, seed):
    """Hashes uint64 of ``ids`` int64 under ``seed`` int64, short of the last mixing step."""
    lane = ids.to(tl.uint64, bitcast=True) * tl.full([], P2, tl.uint64)
    lane = rotate_left(lane, 31) * tl.full([], P1, tl.uint64)
    h = (seed.to(tl.uint64, bitcast=True) + tl.full([], P5_PLUS_8, tl.uint64)) ^ lane
    h = rotate_left(h, 27) * tl.full([], P1, tl.uint64) + tl.full([], P4, tl.uint64)
    h = (h ^ (h >> 33)) * tl.full([], P2, tl.uint64)
    return (h ^ (h >> 29)) * tl.full([], P3, tl.uint64)


@triton.jit
def reduce_to_rows(h, rows):
    """Rows int64 of hashes uint64, for a table of ``rows`` rows."""
    # An argument of 1 comes as a constant, which has no type to convert from.
    height = tl.full([], rows, tl.int64).to(tl.uint64)
    return (((h >> 32) * height) >> 32).to(tl.int64)


@triton.jit
def hash_rows(ids, seed, rows):
    """Rows int64 of ``ids`` int64 under ``seed`` int64, for a table of ``rows`` rows."""
    return reduce_to_rows(hash_ids(ids, seed), rows)
