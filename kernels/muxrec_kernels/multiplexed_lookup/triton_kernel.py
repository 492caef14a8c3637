"""Multiplexed lookup in Triton: hash, gather and pool in one pass; segment sums for the gradient.

Forward, for slot s (feature f, seed z) and item b with ids i_1 .. i_n:

    out[b, s*d : (s+1)*d] = scale(n) * sum_k weight_k * table[row(i_k, z)]

Backward, for a table row r and the lookups (b, s, k) that read it, in the order of their numbers:

    grad[r] = sum  scale(n) * weight_k * grad_out[b, s*d : (s+1)*d]

A program holds a tile of BAGS bags with LANES ids of each in flight; a thread's accumulator is two-
dimensional and is summed over the lanes once per bag. Width, tile and lanes are compile-time
constants: only then are rows read with 16-byte loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.xxhash64.triton_kernel import hash_rows


@triton.jit
def forward_kernel(
    table,  # [R, D]
    ids,  # int64 [N]
    offsets,  # int64 [F * B + 1]
    slot_features,  # int64 [S]
    slot_seeds,  # int64 [S]
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, S * D]
    rows,  # R
    batch_size,  # B
    slots,  # S
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,  # 0 sum, 1 mean, 2 square root
):
    slot = tl.program_id(1)
    feature = tl.load(slot_features + slot)
    seed = tl.load(slot_seeds + slot)

    # Lane l of the tile: bag l // LANES, place l % LANES of each step.   [BAGS * LANES]
    lane = tl.arange(0, BAGS * LANES)
    bag = tl.program_id(0).to(tl.int64) * BAGS + lane // LANES
    in_batch = bag < batch_size
    start = tl.load(offsets + feature * batch_size + bag, mask=in_batch, other=0)
    stop = tl.load(offsets + feature * batch_size + bag + 1, mask=in_batch, other=0)
    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D

    sums = tl.zeros([BAGS * LANES, D_PADDED], tl.float32)
    for step in range(0, tl.max(stop - start), LANES):
        at = start + step + lane % LANES  # [BAGS * LANES]
        alive = at < stop
        found = tl.load(ids + at, mask=alive, other=0)
        row = hash_rows(found, seed, rows)
        # 64-bit addresses: rows * D may pass 2**31.                    [BAGS * LANES, D_PADDED]
        address = table + row[:, None] * D + columns[None, :]
        values = tl.load(address, mask=alive[:, None] & is_column[None, :], other=0.0)
        values = values.to(tl.float32)
        if WEIGHTED:
            weight = tl.load(weights + at, mask=alive, other=0.0)
            values = values * weight[:, None]
        sums += values

    pooled = tl.sum(tl.reshape(sums, [BAGS, LANES, D_PADDED]), axis=1)  # [BAGS, D_PADDED]
    item = tl.program_id(0).to(tl.int64) * BAGS + tl.arange(0, BAGS)
    in_batch = item < batch_size
    if EXPONENT != 0:
        first = tl.load(offsets + feature * batch_size + item, mask=in_batch, other=0)
        last = tl.load(offsets + feature * batch_size + item + 1, mask=in_batch, other=0)
        length = tl.maximum(last - first, 1).to(tl.float32)
        if EXPONENT == 2:
            length = tl.sqrt(length)
        pooled = pooled / length[:, None]
    # The width is a constant, so its product shows the compiler that 16-byte stores are aligned.
    target = out + (item * slots + slot)[:, None] * D + columns[None, :]
    tl.store(target, pooled, mask=in_batch[:, None] & is_column[None, :])


@triton.jit
def segment_kernel(
    grad_out,  # float32 [B, S * D] read as [B * S, D]
    sources,  # int64 [M]: which of the B * S vectors each lookup feeds, ordered by row
    scales,  # float32 [M], ordered likewise, read where SCALED
    starts,  # int64 [U + 1]: where each row's lookups begin
    out,  # float32 [U, D]
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    SCALED: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + segment)
    stop = tl.load(starts + segment + 1)
    lane = tl.arange(0, LANES)  # [LANES]
    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D

    sums = tl.zeros([LANES, D_PADDED], tl.float32)
    for step in range(0, stop - start, LANES):
        at = start + step + lane
        alive = at < stop
        source = tl.load(sources + at, mask=alive, other=0)
        address = grad_out + source[:, None] * D + columns[None, :]
        values = tl.load(address, mask=alive[:, None] & is_column[None, :], other=0.0)
        if SCALED:
            scale = tl.load(scales + at, mask=alive, other=0.0)
            values = values * scale[:, None]
        sums += values
    tl.store(out + segment * D + columns, tl.sum(sums, axis=0), mask=is_column)


@triton.jit
def rows_kernel(
    ids,  # int64 [N]
    positions,  # int64 [M]: the id behind each lookup
    seeds,  # int64 [M]
    out,  # int64 [M]
    count,  # M
    rows,  # R
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    alive = at < count
    position = tl.load(positions + at, mask=alive, other=0)
    found = tl.load(ids + position, mask=alive, other=0)
    seed = tl.load(seeds + at, mask=alive, other=0)
    tl.store(out + at, hash_rows(found, seed, rows), mask=alive)
