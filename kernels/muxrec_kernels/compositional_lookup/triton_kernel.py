"""Compositional lookups in Triton: address, gather, compose and pool in one pass.

Forward, for a bag of ids i_1 .. i_n, with weights w_k and scale(n) = n ** -exponent:

    out[bag] = scale(n) * sum_k w_k * vector(i_k)

    quotient-remainder   vector(i) = Q[i // C] * R[i % C],  or their sum, or both side by side
    multi-hash           vector(i) = sum_p F[row(i, z_K), p] * P[row(i, z_p)]
    codebooks            vector(i)[p] = B[p * C + codes[i, p]]
    pieces (ROBE)        vector(i)[p, c] = sign(i, z_p) * A[(start(i, z_p) + c) mod numbers]

Gradient of row r of an array, over the lookups that read r, in the order of their numbers:

    grad[r, c] = sum  scale * other[c] * grad_out[source, c + shift]

``other`` is the pair's other row where the two are multiplied; ``shift`` tells where a row of the
ROBE array lies in the piece that was cut from it.

A program has LANES ids of BAGS bags in flight; with parts, its tile is [ids, parts, numbers].
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.compositional_lookup.device import (
    bag_ranges,
    cut_pieces,
    flat_columns,
    split_digits,
    store_bags,
)
from muxrec_kernels.xxhash64.triton_kernel import hash_rows

MULTIPLY = tl.constexpr(0)
ADD = tl.constexpr(1)
CONCATENATE = tl.constexpr(2)
UNREAD = tl.constexpr(-(2**31))


@triton.jit
def quotient_remainder_kernel(
    quotients,  # [Q, D]
    remainders,  # [buckets, D]
    index,  # int64 [N]
    offsets,  # int64 [B + 1]
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, D], or [B, 2 * D] where concatenated
    buckets,
    reciprocal,  # (2**63 - 1) // buckets
    bags,  # B
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    COMBINE: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,
):
    start, stop = bag_ranges(offsets, bags, BAGS, LANES)  # type: ignore[misc]
    lane = tl.arange(0, BAGS * LANES)
    columns = tl.arange(0, D_PADDED)
    is_column = columns < D

    sums = tl.zeros([BAGS * LANES, D_PADDED], tl.float32)
    lower = tl.zeros([BAGS * LANES, D_PADDED], tl.float32)
    for step in range(0, tl.max(stop - start), LANES):
        at = start + step + lane % LANES  # [BAGS * LANES]
        alive = at < stop
        found = tl.load(index + at, mask=alive, other=0)
        high, low = split_digits(found, buckets, reciprocal)  # type: ignore[misc]
        mask = alive[:, None] & is_column[None, :]  # [BAGS * LANES, D_PADDED]
        first = quotients + high[:, None] * D + columns[None, :]
        second = remainders + low[:, None] * D + columns[None, :]
        values = tl.load(first, mask=mask, other=0.0).to(tl.float32)
        others = tl.load(second, mask=mask, other=0.0).to(tl.float32)
        if COMBINE == MULTIPLY:
            values = values * others
        if COMBINE == ADD:
            values = values + others
        if WEIGHTED:
            weight = tl.load(weights + at, mask=alive, other=0.0)
            values = values * weight[:, None]
            others = others * weight[:, None]
        sums += values
        if COMBINE == CONCATENATE:
            lower += others

    pooled = tl.sum(tl.reshape(sums, [BAGS, LANES, D_PADDED]), axis=1)  # [BAGS, D_PADDED]
    if COMBINE == CONCATENATE:
        WIDTH: tl.constexpr = 2 * D
        second = tl.sum(tl.reshape(lower, [BAGS, LANES, D_PADDED]), axis=1)
        store_bags(out, pooled, columns, is_column, offsets, bags, WIDTH, BAGS, EXPONENT)
        store_bags(out + D, second, columns, is_column, offsets, bags, WIDTH, BAGS, EXPONENT)
    else:
        store_bags(out, pooled, columns, is_column, offsets, bags, D, BAGS, EXPONENT)


@triton.jit
def multi_hash_kernel(
    pool,  # [pool_rows, D]
    factors,  # [factor_rows, K]
    ids,  # int64 [N]
    offsets,  # int64 [B + 1]
    seeds,  # int64 [K + 1], that of the factors last
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, D]
    pool_rows,
    factor_rows,
    bags,  # B
    K: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,
):
    start, stop = bag_ranges(offsets, bags, BAGS, LANES)  # type: ignore[misc]
    lane = tl.arange(0, BAGS * LANES)
    columns = tl.arange(0, D_PADDED)
    is_column = columns < D

    sums = tl.zeros([BAGS * LANES, D_PADDED], tl.float32)
    for step in range(0, tl.max(stop - start), LANES):
        at = start + step + lane % LANES  # [BAGS * LANES]
        alive = at < stop
        found = tl.load(ids + at, mask=alive, other=0)
        own = hash_rows(found, tl.load(seeds + K), factor_rows)
        mask = alive[:, None] & is_column[None, :]  # [BAGS * LANES, D_PADDED]
        for probe in tl.static_range(K):
            row = hash_rows(found, tl.load(seeds + probe), pool_rows)
            factor = tl.load(factors + own * K + probe, mask=alive, other=0.0).to(tl.float32)
            if WEIGHTED:
                factor = factor * tl.load(weights + at, mask=alive, other=0.0)
            address = pool + row[:, None] * D + columns[None, :]
            values = tl.load(address, mask=mask, other=0.0).to(tl.float32)
            sums += values * factor[:, None]

    pooled = tl.sum(tl.reshape(sums, [BAGS, LANES, D_PADDED]), axis=1)  # [BAGS, D_PADDED]
    store_bags(out, pooled, columns, is_column, offsets, bags, D, BAGS, EXPONENT)


@triton.jit
def codebook_kernel(
    codes,  # uint8 [V, PARTS]
    codebook,  # [PARTS * entries, D]
    index,  # int64 [N]
    offsets,  # int64 [B + 1]
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, PARTS * D]
    entries,  # C
    bags,  # B
    PARTS: tl.constexpr,
    PARTS_PADDED: tl.constexpr,
    D: tl.constexpr,  # of a part
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,
):
    start, stop = bag_ranges(offsets, bags, BAGS, LANES)  # type: ignore[misc]
    lane = tl.arange(0, BAGS * LANES)
    part = tl.arange(0, PARTS_PADDED)
    is_part = part < PARTS
    columns = tl.arange(0, D_PADDED)
    is_column = columns < D

    sums = tl.zeros([BAGS * LANES, PARTS_PADDED, D_PADDED], tl.float32)
    for step in range(0, tl.max(stop - start), LANES):
        at = start + step + lane % LANES  # [BAGS * LANES]
        alive = at < stop
        found = tl.load(index + at, mask=alive, other=0)
        is_read = alive[:, None] & is_part[None, :]  # [BAGS * LANES, PARTS_PADDED]
        code = tl.load(codes + found[:, None] * PARTS + part[None, :], mask=is_read, other=0)
        entry = part[None, :] * entries + code.to(tl.int32)
        # As an entry that is not there: no thread holds bags for all of its numbers.
        entry = tl.where(is_read, entry, UNREAD)[:, :, None]
        address = codebook + entry.to(tl.int64) * D + columns[None, None, :]
        mask = (entry != UNREAD) & is_column[None, None, :]
        values = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        if WEIGHTED:
            weight = tl.load(weights + at, mask=alive, other=0.0)
            values = values * weight[:, None, None]
        sums += values

    WIDTH: tl.constexpr = PARTS * D
    pooled = tl.sum(tl.reshape(sums, [BAGS, LANES, PARTS_PADDED * D_PADDED]), axis=1)
    column, is_column = flat_columns(  # type: ignore[misc]
        PARTS, PARTS_PADDED, D, D_PADDED, WIDTH
    )
    store_bags(out, pooled, column, is_column, offsets, bags, WIDTH, BAGS, EXPONENT)


@triton.jit
def robe_kernel(
    array,  # [numbers]
    ids,  # int64 [N]
    offsets,  # int64 [B + 1]
    seeds,  # int64 [PIECES]
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, WIDTH]
    numbers,
    bags,  # B
    PIECES: tl.constexpr,
    PIECES_PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EXPONENT: tl.constexpr,
):
    start, stop = bag_ranges(offsets, bags, BAGS, LANES)  # type: ignore[misc]
    lane = tl.arange(0, BAGS * LANES)
    piece = tl.arange(0, PIECES_PADDED)
    is_piece = piece < PIECES
    seed = tl.load(seeds + piece, mask=is_piece, other=0)
    columns = tl.arange(0, BLOCK_PADDED)
    is_column = columns < BLOCK

    sums = tl.zeros([BAGS * LANES, PIECES_PADDED, BLOCK_PADDED], tl.float32)
    for step in range(0, tl.max(stop - start), LANES):
        at = start + step + lane % LANES  # [BAGS * LANES]
        alive = at < stop
        is_read = alive[:, None] & is_piece[None, :]  # [BAGS * LANES, PIECES_PADDED]
        # Read once per piece: the compiler repeats a cheap load, and the hash with it, in every
        # thread of a piece, but not a load of a whole warp's width.
        found = tl.load(ids + at[:, None] + 0 * piece[None, :], mask=is_read, other=0)
        begin, sign = cut_pieces(found, seed[None, :], numbers)  # type: ignore[misc]
        # Counted from the end no sum leaves 32 bits, and one integer is free to say that nothing is
        # read, so that no thread holds bags for all of its numbers.
        begin = tl.where(is_read, (begin - numbers).to(tl.int32), UNREAD)[:, :, None]
        place = begin + columns[None, None, :]
        place = tl.where(place < 0, place + numbers, place)
        mask = (begin != UNREAD) & is_column[None, None, :]
        values = tl.load(array + place, mask=mask, other=0.0).to(tl.float32)
        if WEIGHTED:
            sign = sign * tl.load(weights + at, mask=alive, other=0.0)[:, None]
        sums += values * sign[:, :, None]

    pooled = tl.sum(tl.reshape(sums, [BAGS, LANES, PIECES_PADDED * BLOCK_PADDED]), axis=1)
    column, is_column = flat_columns(  # type: ignore[misc]
        PIECES, PIECES_PADDED, BLOCK, BLOCK_PADDED, WIDTH
    )
    store_bags(out, pooled, column, is_column, offsets, bags, WIDTH, BAGS, EXPONENT)


@triton.jit
def row_sums_kernel(
    grad,  # float32 [S, D]
    sources,  # int64 [M]: which vector of grad each lookup feeds, ordered by row
    scales,  # float32 [M], ordered likewise, read where SCALED
    others,  # [R, D], read where MULTIPLIED
    other_rows,  # int64 [M], ordered likewise, read where MULTIPLIED
    shifts,  # int32 [M], ordered likewise, read where SHIFTED
    begins,  # int64 [U + cuts]: the first lookup of each run
    ends,  # int64 [U + cuts]: one past its last
    out,  # float32 [U + cuts, D]
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    SCALED: tl.constexpr,
    MULTIPLIED: tl.constexpr,
    SHIFTED: tl.constexpr,
):
    run = tl.program_id(0).to(tl.int64)
    start = tl.load(begins + run)
    stop = tl.load(ends + run)
    lane = tl.arange(0, LANES)
    columns = tl.arange(0, D_PADDED)
    is_column = columns < D

    sums = tl.zeros([LANES, D_PADDED], tl.float32)
    for step in range(0, stop - start, LANES):
        at = start + step + lane  # [LANES]
        alive = at < stop
        source = tl.load(sources + at, mask=alive, other=0)
        mask = alive[:, None] & is_column[None, :]  # [LANES, D_PADDED]
        if SHIFTED:
            shift = tl.load(shifts + at, mask=alive, other=0)
            place = columns[None, :] + shift[:, None]
            mask = mask & (place >= 0) & (place < D)
            address = grad + source[:, None] * D + place
        else:
            address = grad + source[:, None] * D + columns[None, :]
        values = tl.load(address, mask=mask, other=0.0)
        if MULTIPLIED:
            other = tl.load(other_rows + at, mask=alive, other=0)
            address = others + other[:, None] * D + columns[None, :]
            values = values * tl.load(address, mask=mask, other=0.0).to(tl.float32)
        if SCALED:
            scale = tl.load(scales + at, mask=alive, other=0.0)
            values = values * scale[:, None]
        sums += values
    tl.store(out + run * D + columns, tl.sum(sums, axis=0), mask=is_column)


@triton.jit
def merge_kernel(
    sums,  # float32 [U + cuts, D]: of each row's first run, then of the runs behind each cut
    starts,  # int64 [U + 1]: where each row's lookups begin
    rows,  # U
    RUN: tl.constexpr,  # lookups between cuts
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    # Cut c, for c of 1, 2 .., lies before lookup c * RUN; its sums follow those of the rows.
    first = tl.load(starts + row) // RUN + 1
    last = (tl.load(starts + row + 1) - 1) // RUN
    columns = tl.arange(0, D_PADDED)
    is_column = columns < D
    if first <= last:
        total = tl.zeros([LANES, D_PADDED], tl.float32)
        for step in range(first, last + 1, LANES):
            cut = step + tl.arange(0, LANES)  # [LANES]
            mask = (cut <= last)[:, None] & is_column[None, :]
            address = sums + (rows + cut - 1)[:, None] * D + columns[None, :]
            total += tl.load(address, mask=mask, other=0.0)
        target = sums + row * D + columns
        own = tl.load(target, mask=is_column, other=0.0)
        tl.store(target, own + tl.sum(total, axis=0), mask=is_column)


@triton.jit
def multi_hash_terms_kernel(
    grad,  # float32 [B, D]
    pool,  # [pool_rows, D]
    factors,  # [factor_rows, K]
    ids,  # int64 [N]
    bags,  # int64 [N]: the bag of each id
    scales,  # float32 [N], read where SCALED
    seeds,  # int64 [K + 1]
    rows,  # int32 [N, K], out: rows of the pool
    owns,  # int32 [N], out: rows of the factors
    coefficients,  # float32 [N, K], out: scale times factor
    slopes,  # float32 [N, K], out: scale times the pool's row times grad
    count,  # N
    pool_rows,
    factor_rows,
    K: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    SCALED: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)  # [LANES]
    alive = at < count
    found = tl.load(ids + at, mask=alive, other=0)
    bag = tl.load(bags + at, mask=alive, other=0)
    columns = tl.arange(0, D_PADDED)
    mask = alive[:, None] & (columns < D)[None, :]  # [LANES, D_PADDED]
    slope = tl.load(grad + bag[:, None] * D + columns[None, :], mask=mask, other=0.0)
    own = hash_rows(found, tl.load(seeds + K), factor_rows)
    tl.store(owns + at, own.to(tl.int32), mask=alive)
    scale = tl.full([LANES], 1.0, tl.float32)
    if SCALED:
        scale = tl.load(scales + at, mask=alive, other=0.0)
    slope = slope * scale[:, None]
    for probe in tl.static_range(K):
        row = hash_rows(found, tl.load(seeds + probe), pool_rows)
        tl.store(rows + at * K + probe, row.to(tl.int32), mask=alive)
        factor = tl.load(factors + own * K + probe, mask=alive, other=0.0).to(tl.float32)
        tl.store(coefficients + at * K + probe, factor * scale, mask=alive)
        address = pool + row[:, None] * D + columns[None, :]
        values = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        tl.store(slopes + at * K + probe, tl.sum(values * slope, axis=1), mask=alive)


@triton.jit
def robe_terms_kernel(
    ids,  # int64 [N]
    seeds,  # int64 [PIECES]
    rows,  # int32 [N, PIECES, 2], out: the two rows that each piece is cut from
    shifts,  # int32 [N, PIECES, 2], out: number of the piece that lies at a row's first number
    signs,  # float32 [N, PIECES], out
    count,  # N * PIECES
    array_rows,  # R
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)  # [LANES]
    alive = at < count
    found = tl.load(ids + at // PIECES, mask=alive, other=0)
    seed = tl.load(seeds + at % PIECES, mask=alive, other=0)
    begin, sign = cut_pieces(found, seed, array_rows * BLOCK)  # type: ignore[misc]
    row = begin // BLOCK
    shift = row * BLOCK - begin
    following = tl.where(row == array_rows - 1, 0, row + 1)
    tl.store(rows + 2 * at, row.to(tl.int32), mask=alive)
    tl.store(rows + 2 * at + 1, following.to(tl.int32), mask=alive)
    tl.store(shifts + 2 * at, shift.to(tl.int32), mask=alive)
    tl.store(shifts + 2 * at + 1, (shift + BLOCK).to(tl.int32), mask=alive)
    tl.store(signs + at, sign, mask=alive)
