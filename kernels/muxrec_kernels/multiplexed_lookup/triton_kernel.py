"""Multiplexed lookup in Triton: hash, gather and pool in one pass, long bags split and merged.

For slot s (feature f, seed z) and item b with ids i_1 .. i_n:

    out[b, s*d : (s+1)*d] = scale(n) * sum_k weight_k * table[row(i_k, z)]

where row is the hash, or the id itself where rows are given. A bag of at least PIECE ids is summed
in pieces of PIECE ids, each by a program of its own, and then merged in their order:

    sum = (piece_0 + piece_1 + ..) + the n % PIECE ids that are left

A program holds a tile of BAGS bags with LANES ids of each in flight. Width, tile and lanes are
compile-time constants: only then are rows read with 16-byte loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.xxhash64.triton_kernel import hash_rows

STAGES = tl.constexpr(3)
"""Ids, rows and sums of three steps overlap. Rows then travel as asynchronous copies, which the
assembler cannot delay: of plain loads it kept two in flight, to spare registers."""

VARYING = ("batch_size", "pieces")
"""Numbers of a batch: a new kernel for those that are 1 or a multiple of 16 would gain nothing."""


@triton.jit
def sum_rows(
    table,
    ids,
    weights,
    start,  # int64 [BAGS * LANES], bag l % BAGS in lane l: first id
    stop,  # int64 [BAGS * LANES]: one past the last id
    seed,
    rows,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HASHED: tl.constexpr,
):
    lane = tl.arange(0, BAGS * LANES)  # [BAGS * LANES]
    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D

    sums = tl.zeros([BAGS * LANES, D_PADDED], tl.float32)
    for step in tl.range(0, tl.max(stop - start), LANES, num_stages=STAGES):
        at = start + step + lane // BAGS  # [BAGS * LANES]
        alive = at < stop
        row = tl.load(ids + at, mask=alive, other=0)
        if HASHED:
            row = hash_rows(row, seed, rows)
        # The shuffle hands rows to the threads that read them. Without it the compiler would hash
        # every id in each of these threads, 16 times over for rows of 256 bytes.
        row = tl.gather(tl.where(alive, row, -1).to(tl.int32), lane, 0)
        is_read = (row >= 0)[:, None] & is_column[None, :]
        # 64-bit addresses: rows * D may pass 2**31.                    [BAGS * LANES, D_PADDED]
        address = table + row.to(tl.int64)[:, None] * D + columns[None, :]
        values = tl.load(address, mask=is_read, other=0.0).to(tl.float32)
        if WEIGHTED:
            weight = tl.load(weights + at, mask=alive, other=0.0)
            values = values * tl.gather(weight, lane, 0)[:, None]
        sums += values
    return tl.sum(tl.reshape(sums, [LANES, BAGS, D_PADDED]), axis=0)  # [BAGS, D_PADDED]


@triton.jit
def pool(sums, length, EXPONENT: tl.constexpr):
    # [BAGS, D_PADDED] by [BAGS]; an empty bag stays zero.
    if EXPONENT == 0:
        return sums
    divisor = tl.maximum(length, 1).to(tl.float32)
    if EXPONENT == 2:
        divisor = tl.sqrt(divisor)
    return sums / divisor[:, None]


@triton.jit
def find_piece(offsets, first, batch_size, piece, reach, PIECE: tl.constexpr, WAYS: tl.constexpr):
    """First id of a piece and whether a bag of the feature has such a piece.

    A bag's pieces are numbered from ``start // PIECE`` on: no other bag has the same numbers, since
    the next one starts after ``n // PIECE`` whole pieces.
    """
    # The last bag that starts before the next number's ids, WAYS bags compared at a time: few loads
    # wait for each other, since most programs of a piece only find that there is none.
    way = tl.arange(0, WAYS).to(tl.int64) + 1  # [WAYS]
    stride = tl.full([], reach, tl.int64)
    bag = tl.full([], 0, tl.int64)
    while stride > 0:
        later = bag + way * stride
        starts = tl.load(offsets + first + later, mask=later < batch_size, other=2**62)
        bag += stride * tl.sum((starts < (piece + 1) * PIECE).to(tl.int64))
        stride //= WAYS
    start = tl.load(offsets + first + bag)
    length = tl.load(offsets + first + bag + 1) - start
    place = piece - start // PIECE
    return start + place * PIECE, (place >= 0) & (place < length // PIECE)


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    table,  # [R, D]
    ids,  # int64 [N], rows where not HASHED
    offsets,  # int64 [F * B + 1]
    slot_features,  # int64 [S], read where HASHED
    slot_seeds,  # int64 [S], read where HASHED
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, S * D]
    partials,  # float32 [S, pieces, D], written where PIECE > 0
    rows,  # R
    batch_size,  # B
    slots,  # S
    pieces,  # N // PIECE
    reach,  # first stride of a search among B bags, WAYS at a time
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HASHED: tl.constexpr,
    EXPONENT: tl.constexpr,  # 0 sum, 1 mean, 2 square root
    PIECE: tl.constexpr,  # 0: no bag can be long
    WAYS: tl.constexpr,
):
    # Programs of an item's slots are neighbours: they read the same ids and write one line.
    program = tl.program_id(0)
    slot = program % slots
    tile = (program // slots).to(tl.int64)
    first = tl.full([], 0, tl.int64)
    seed = first
    if HASHED:
        first = tl.load(slot_features + slot) * batch_size
        seed = tl.load(slot_seeds + slot)
    height = tl.full([], rows, tl.int64)

    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D
    lane = tl.arange(0, BAGS * LANES)
    if PIECE > 0:
        if tile < pieces:
            begin, is_found = find_piece(offsets, first, batch_size, tile, reach, PIECE, WAYS)  # type: ignore[misc]
            end = tl.where(is_found, begin + PIECE, begin)
            piece = sum_rows(
                *(table, ids, weights, begin + lane * 0, end + lane * 0, seed, height),
                *(D, D_PADDED, 1, BAGS * LANES, WEIGHTED, HASHED),
            )
            place = partials + (slot.to(tl.int64) * pieces + tile) * D + columns[None, :]
            tl.store(place, piece, mask=is_column[None, :] & is_found)
            return
        tile -= pieces

    bag = tile * BAGS + lane % BAGS  # [BAGS * LANES]
    in_batch = bag < batch_size
    start = tl.load(offsets + first + bag, mask=in_batch, other=0)
    stop = tl.load(offsets + first + bag + 1, mask=in_batch, other=0)
    if PIECE > 0:
        stop = tl.where(stop - start < PIECE, stop, start)
    sums = sum_rows(
        *(table, ids, weights, start, stop, seed, height),
        *(D, D_PADDED, BAGS, LANES, WEIGHTED, HASHED),
    )
    item = tile * BAGS + tl.arange(0, BAGS)  # [BAGS]
    is_written = item < batch_size
    length = tl.load(offsets + first + item + 1, mask=is_written, other=0)
    length -= tl.load(offsets + first + item, mask=is_written, other=0)
    if PIECE > 0:
        is_written &= length < PIECE
    # The width is a constant, so its product shows the compiler that 16-byte stores are aligned.
    target = out + (item * slots + slot)[:, None] * D + columns[None, :]
    mask = is_written[:, None] & is_column[None, :]
    tl.store(target, pool(sums, length, EXPONENT), mask=mask)


@triton.jit(do_not_specialize=VARYING)
def merge_kernel(
    table,  # [R, D]
    ids,  # int64 [N], rows where not HASHED
    offsets,  # int64 [F * B + 1]
    slot_features,  # int64 [S], read where HASHED
    slot_seeds,  # int64 [S], read where HASHED
    weights,  # float32 [N], read where WEIGHTED
    out,  # float32 [B, S * D]
    partials,  # float32 [S, pieces, D]
    rows,  # R
    batch_size,  # B
    slots,  # S
    pieces,  # N // PIECE
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    BAGS: tl.constexpr,  # bags that a program looks through for long ones
    LANES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    HASHED: tl.constexpr,
    EXPONENT: tl.constexpr,
    PIECE: tl.constexpr,
):
    program = tl.program_id(0)
    slot = program % slots
    first = tl.full([], 0, tl.int64)
    seed = first
    if HASHED:
        first = tl.load(slot_features + slot) * batch_size
        seed = tl.load(slot_seeds + slot)
    height = tl.full([], rows, tl.int64)

    place = tl.arange(0, BAGS)  # [BAGS]
    item = (program // slots).to(tl.int64) * BAGS + place
    in_batch = item < batch_size
    start = tl.load(offsets + first + item, mask=in_batch, other=0)
    stop = tl.load(offsets + first + item + 1, mask=in_batch, other=0)
    is_long = stop - start >= PIECE

    columns = tl.arange(0, D_PADDED)  # [D_PADDED]
    is_column = columns < D
    lane = tl.arange(0, LANES)  # [LANES]
    # One long bag after another: the place of the next one, BAGS when there is none.
    found = tl.min(tl.where(is_long, place, BAGS))
    while found < BAGS:
        bag = (program // slots).to(tl.int64) * BAGS + found
        begin = tl.load(offsets + first + bag)
        end = tl.load(offsets + first + bag + 1)
        count = (end - begin) // PIECE
        base = partials + (slot.to(tl.int64) * pieces + begin // PIECE) * D
        sums = tl.zeros([LANES, D_PADDED], tl.float32)
        for step in tl.range(0, count, LANES, num_stages=STAGES):
            at = step + lane  # [LANES]
            mask = (at < count)[:, None] & is_column[None, :]
            sums += tl.load(base + at[:, None] * D + columns[None, :], mask=mask, other=0.0)
        tail = sum_rows(
            *(table, ids, weights, begin + count * PIECE + lane * 0, end + lane * 0, seed, height),
            *(D, D_PADDED, 1, LANES, WEIGHTED, HASHED),
        )
        whole = tl.sum(tl.reshape(sums, [LANES, 1, D_PADDED]), axis=0) + tail
        length = tl.full([1], 0, tl.int64) + (end - begin)
        target = out + (bag * slots + slot) * D + columns[None, :]
        tl.store(target, pool(whole, length, EXPONENT), mask=is_column[None, :])
        is_long &= place > found
        found = tl.min(tl.where(is_long, place, BAGS))


@triton.jit(do_not_specialize=["count"])
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
    height = tl.full([], rows, tl.int64)
    tl.store(out + at, hash_rows(found, seed, height), mask=alive)
