"""Scans of item codes in Triton: scores of a tile of items, the best of them kept in registers.

    signs:  distance(q, n) = sum_w popcount(query[q, w] ^ code[n, w])
    dots:   dot(q, n) = sum_p sum_j query[p, q, j] * plane_p(code[n, j])
            score = dot, dot * step[n], or dot * step[n] + offset[n] * sum(query)

A result is one key of 64 bits: the score as an ordered int32 above the item's number counted down,
so that the larger key is the better score or, at equal scores, the lower item. A program goes over
tiles of items and keeps the K best keys of each of its queries. Only a tile that holds a key above
the query's K-th best, or above its floor, is sorted; the launcher takes the floors from a sample.

Sizes of codes and tiles are compile-time constants: only then are codes read with 16-byte loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

NONE = tl.constexpr(-(2**63))
"""The key of no item; below every other."""


@triton.jit
def popcount(word):
    """Set bits of uint32, counted in parts; the compiler knows the form and emits POPC."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return (word * 0x01010101) >> 24


@triton.jit
def ordered(score):
    """int32 in the order of the float32 ``score``; both zeros are one."""
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def tile_at(step, EVERY: tl.constexpr, REST: tl.constexpr):
    """The tile of a step: every ``EVERY``-th one, or with REST all that these left."""
    if REST:
        return step + step // (EVERY - 1) + 1
    return step * EVERY


@triton.jit
def keys_of(order, item, alive, left_out, floor):
    """Keys int64 ``[QT, NT]``; NONE for items that are not there, left out or not above the floor.

    ``order`` is int32 ``[QT, NT]``, the items int64 ``[NT]``, ``left_out`` and ``floor`` ``[QT]``.
    """
    key = (order.to(tl.int64) << 32) | (0xFFFFFFFF - item)[None, :]
    wanted = alive[None, :] & (item[None, :] != left_out[:, None]) & (key > floor[:, None])
    return tl.where(wanted, key, NONE)


@triton.constexpr_function
def log2(size):
    """Logarithm of a power of two."""
    return int(size).bit_length() - 1


@triton.jit
def second_half(DIMS: tl.constexpr, BIT: tl.constexpr):
    """int32 ``[1, .., 2, .., 1]``: 1 at the second place of the dimension BIT from the last."""
    return tl.reshape(tl.arange(0, 2), [1] * (DIMS - 1 - BIT) + [2] + [1] * BIT)


@triton.jit
def sort_runs(cube, DIMS: tl.constexpr, LOG: tl.constexpr, falls):
    """Sort bitonic runs of ``2**LOG`` keys, int64 ``[2] * DIMS``; falling where ``falls`` is 1."""
    for step in tl.static_range(LOG):  # type: ignore[misc]
        # A pair's sum less one is the other, wrapped or not: the interpreter is quick at plain sums
        # and slow at any other reduction, and the compiler cancels the addition.
        other = tl.sum(cube, axis=DIMS - LOG + step, keep_dims=True) - cube
        is_swapped = (cube > other) != (falls ^ second_half(DIMS, LOG - 1 - step))
        cube = tl.where(is_swapped, other, cube)
    return cube


@triton.jit
def merge_best(best, key, QT: tl.constexpr, NT: tl.constexpr, K: tl.constexpr):
    """The K largest of rising ``best`` ``[QT, K]`` and of ``key`` ``[QT, NT]``, rising; K <= NT.

    Runs of K keys are sorted up and down by turns; of such a pair the larger keys, place by place,
    are the K largest and bitonic, and are sorted again until one run is left.

    Source: Shanbhag, Pirk, Madden: Efficient top-k query processing on massively parallel hardware
    (SIGMOD 2018), bitonic top-k.
    """
    LOG_K: tl.constexpr = log2(K)
    LOG_NT: tl.constexpr = log2(NT)
    LOG_QT: tl.constexpr = log2(QT)
    DIMS: tl.constexpr = LOG_QT + LOG_NT
    cube = tl.reshape(key, [2] * DIMS)
    for log in tl.static_range(1, LOG_K):  # type: ignore[misc]
        cube = sort_runs(cube, DIMS, log, second_half(DIMS, log))
    for step in tl.static_range(LOG_NT - LOG_K):  # type: ignore[misc]
        cube = sort_runs(cube, DIMS - step, LOG_K, second_half(DIMS - step, LOG_K))
        cube = tl.max(cube, axis=DIMS - step - 1 - LOG_K)
    # The last run falls while ``best`` rises: their larger keys are bitonic once more.
    LAST: tl.constexpr = LOG_QT + LOG_K
    cube = tl.maximum(sort_runs(cube, LAST, LOG_K, 1), tl.reshape(best, [2] * LAST))
    return tl.reshape(sort_runs(cube, LAST, LOG_K, 0), [QT, K])


@triton.jit
def signs_kernel(
    queries,  # int32 [Q, W]
    codes,  # int32 [N, W]
    exclude,  # int64 [Q], read where EXCLUDES
    floors,  # int64 [Q], read where REST
    out,  # int64 [Q, programs, K]
    query_count,  # Q
    items,  # N
    steps,  # tiles of this launch
    EVERY: tl.constexpr,
    W: tl.constexpr,
    W_PADDED: tl.constexpr,
    QT: tl.constexpr,
    NT: tl.constexpr,
    K: tl.constexpr,
    EXCLUDES: tl.constexpr,
    REST: tl.constexpr,
):
    query = tl.program_id(0) * QT + tl.arange(0, QT)  # [QT]
    is_query = query < query_count
    word = tl.arange(0, W_PADDED)[None, :]
    at = queries + query[:, None] * W + word
    asked = tl.load(at, mask=is_query[:, None] & (word < W), other=0)  # [QT, W_PADDED]
    left_out = tl.full([QT], -1, tl.int64)
    if EXCLUDES:
        left_out = tl.load(exclude + query, mask=is_query, other=-1)
    floor = tl.full([QT], NONE, tl.int64)
    if REST:
        floor = tl.load(floors + query, mask=is_query, other=NONE)

    best = tl.full([QT, K], NONE, tl.int64)
    for step in range(tl.program_id(1), steps, tl.num_programs(1)):
        tile = tl.zeros([NT], tl.int64) + tile_at(step, EVERY, REST)
        item = tile * NT + tl.arange(0, NT)  # [NT]
        alive = item < items
        # 64-bit addresses: items * W may pass 2**31.                      [NT, W_PADDED]
        address = codes + item[:, None] * W + word
        code = tl.load(address, mask=alive[:, None] & (word < W), other=0)
        apart = (asked[:, None, :] ^ code[None, :, :]).to(tl.uint32, bitcast=True)
        distance = tl.sum(popcount(apart).to(tl.int32), axis=2)  # [QT, NT]
        key = keys_of(-distance, item, alive, left_out, floor)
        if tl.max(key) > NONE:
            best = merge_best(best, key, QT, NT, K)
            floor = tl.maximum(floor, tl.min(best, axis=1))
    target = out + (query[:, None].to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * K
    tl.store(target + tl.arange(0, K)[None, :], best, mask=is_query[:, None])


@triton.jit
def plane_of(code, plane: tl.constexpr, BITS: tl.constexpr, WHOLE: tl.constexpr):
    """Numbers of a plane of the bytes ``code``: int8 where WHOLE, else float16, both exact.

    Bytes of 8 bits are signed, shorter numbers are not. A float16 between 1,024 and 2,048 holds a
    whole number in its lowest bits: an OR and a subtraction instead of a slow conversion.
    """
    bits = (code >> (BITS * plane)) & (2**BITS - 1)
    if BITS == 8 and not WHOLE:
        bits = code ^ 0x80
    if WHOLE:
        numbers = bits.to(tl.int8, bitcast=True)
    else:
        shifted = (bits.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True)
        numbers = shifted - (1152.0 if BITS == 8 else 1024.0)
    return numbers


@triton.jit
def order_of(
    dot, query, is_query, item, alive, units, sums, steps_of, offsets_of,
    WHOLE: tl.constexpr, SCALED: tl.constexpr, OFFSETS: tl.constexpr, PER_ITEM: tl.constexpr,
):  # fmt: skip
    """Scores of the products ``[NT, QT]`` as ordered int32 ``[QT, NT]``."""
    if WHOLE and not SCALED:
        order = tl.trans(dot)
    else:
        score = tl.trans(dot).to(tl.float32)
        if not WHOLE:
            score = score * tl.load(units + query, mask=is_query, other=0.0)[:, None]
        place = item if PER_ITEM else item * 0
        if SCALED:
            score = score * tl.load(steps_of + place, mask=alive, other=0.0)[None, :]
        if OFFSETS:
            offset = tl.load(offsets_of + place, mask=alive, other=0.0)
            total = tl.load(sums + query, mask=is_query, other=0.0)
            score = score + total[:, None] * offset[None, :]
        order = ordered(score)
    return order


@triton.jit
def dots_kernel(
    queries,  # int8 [PLANES, Q, BYTES] where WHOLE, else float16 [2, PLANES, Q, BYTES]
    codes,  # uint8 [N, BYTES]
    units,  # float32 [Q]: what a query was divided by, read where not WHOLE
    sums,  # float32 [Q]: sum of each query, read where OFFSETS
    steps_of,  # float32 [N], or [1] where not PER_ITEM, read where SCALED
    offsets_of,  # float32 [N], or [1] where not PER_ITEM, read where OFFSETS
    exclude,  # int64 [Q], read where EXCLUDES
    floors,  # int64 [Q], read where REST
    out,  # int64 [Q, programs, K]
    query_count,  # Q
    items,  # N
    steps,  # tiles of this launch
    EVERY: tl.constexpr,
    BYTES: tl.constexpr,
    BLOCK: tl.constexpr,  # bytes of a code that are multiplied at once
    BITS: tl.constexpr,
    WHOLE: tl.constexpr,
    SCALED: tl.constexpr,
    OFFSETS: tl.constexpr,
    PER_ITEM: tl.constexpr,
    QT: tl.constexpr,
    NT: tl.constexpr,
    K: tl.constexpr,
    EXCLUDES: tl.constexpr,
    REST: tl.constexpr,
):
    PLANES: tl.constexpr = 8 // BITS
    query = tl.program_id(0) * QT + tl.arange(0, QT)  # [QT]
    is_query = query < query_count
    left_out = tl.full([QT], -1, tl.int64)
    if EXCLUDES:
        left_out = tl.load(exclude + query, mask=is_query, other=-1)
    floor = tl.full([QT], NONE, tl.int64)
    if REST:
        floor = tl.load(floors + query, mask=is_query, other=NONE)

    best = tl.full([QT, K], NONE, tl.int64)
    for step in range(tl.program_id(1), steps, tl.num_programs(1)):
        tile = tl.zeros([NT], tl.int64) + tile_at(step, EVERY, REST)
        item = tile * NT + tl.arange(0, NT)  # [NT]
        alive = item < items
        dot = tl.zeros([NT, QT], tl.int32 if WHOLE else tl.float32)
        for start in tl.static_range(0, BYTES, BLOCK):
            byte = start + tl.arange(0, BLOCK)  # [BLOCK]
            is_byte = byte < BYTES
            # 64-bit addresses: items * BYTES may pass 2**31.                [NT, BLOCK]
            address = codes + item[:, None] * BYTES + byte[None, :]
            code = tl.load(address, mask=alive[:, None] & is_byte[None, :], other=0)
            for plane in tl.static_range(PLANES):
                numbers = plane_of(code, plane, BITS, WHOLE)
                for half in tl.static_range(1 if WHOLE else 2):
                    row = (half * PLANES + plane) * query_count + query  # [QT]
                    at = queries + row[:, None].to(tl.int64) * BYTES + byte[None, :]
                    asked = tl.load(at, mask=is_query[:, None] & is_byte[None, :], other=0)
                    dot = tl.dot(numbers, tl.trans(asked), dot, out_dtype=dot.dtype)  # [NT, QT]
        order = order_of(
            dot, query, is_query, item, alive, units, sums, steps_of, offsets_of,
            WHOLE, SCALED, OFFSETS, PER_ITEM,
        )  # fmt: skip
        key = keys_of(order, item, alive, left_out, floor)
        if tl.max(key) > NONE:
            best = merge_best(best, key, QT, NT, K)
            floor = tl.maximum(floor, tl.min(best, axis=1))
    target = out + (query[:, None].to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * K
    tl.store(target + tl.arange(0, K)[None, :], best, mask=is_query[:, None])
