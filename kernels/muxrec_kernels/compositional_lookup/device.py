"""Device functions that the lookups' kernels share: where numbers lie, and how bags are stored."""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.xxhash64.triton_kernel import hash_ids, reduce_to_rows


@triton.jit
def bag_ranges(offsets, bags, BAGS: tl.constexpr, LANES: tl.constexpr):
    """First id, and one past the last, of the bag of each lane: int64 [BAGS * LANES]."""
    lane = tl.arange(0, BAGS * LANES)
    bag = tl.program_id(0).to(tl.int64) * BAGS + lane // LANES
    in_batch = bag < bags
    start = tl.load(offsets + bag, mask=in_batch, other=0)
    return start, tl.load(offsets + bag + 1, mask=in_batch, other=0)


@triton.jit
def store_bags(
    out,  # float32 [B, WIDTH]
    pooled,  # [BAGS, columns]
    columns,
    is_column,
    offsets,
    bags,
    WIDTH: tl.constexpr,
    BAGS: tl.constexpr,
    EXPONENT: tl.constexpr,  # 0 sum, 1 mean, 2 square root
):
    """Turn the sums of a program's bags into the wanted pooling and store them."""
    bag = tl.program_id(0).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    in_batch = bag < bags
    if EXPONENT != 0:
        first = tl.load(offsets + bag, mask=in_batch, other=0)
        last = tl.load(offsets + bag + 1, mask=in_batch, other=0)
        length = tl.maximum(last - first, 1).to(tl.float32)
        if EXPONENT == 2:
            length = tl.sqrt(length)
        pooled = pooled / length[:, None]
    target = out + bag[:, None] * WIDTH + columns[None, :]
    tl.store(target, pooled, mask=in_batch[:, None] & is_column[None, :])


@triton.jit
def split_digits(index, buckets, reciprocal):
    """``index // buckets`` and ``index % buckets``, int64, by one high product.

    ``reciprocal`` is (2**63 - 1) // buckets, so that the product is the quotient or one less for
    every index in [0, 2**63): a division of 64 bits would take some seventy instructions.
    """
    high = tl.umulhi(index.to(tl.uint64) * 2, reciprocal.to(tl.uint64)).to(tl.int64)
    low = index - high * buckets
    is_over = low >= buckets
    return tl.where(is_over, high + 1, high), tl.where(is_over, low - buckets, low)


@triton.jit
def flat_columns(
    PARTS: tl.constexpr,
    PARTS_PADDED: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Column of the vector of every number of a tile's parts, and whether there is one."""
    number = tl.arange(0, PARTS_PADDED * D_PADDED)
    if D == D_PADDED:
        return number, number < WIDTH
    part, column = number // D_PADDED, number % D_PADDED
    place = part * D + column
    return place, (part < PARTS) & (column < D) & (place < WIDTH)


@triton.jit
def cut_pieces(ids, seeds, numbers):
    """Where pieces begin, int64, and their signs, float32, in the broadcast shape of both."""
    h = hash_ids(ids, seeds)
    # The lowest bit after the last mixing step, which the place, from the upper half, never sees.
    bit = ((h ^ (h >> 32)) & 1).to(tl.int32)
    return reduce_to_rows(h, numbers), (1 - 2 * bit).to(tl.float32)
