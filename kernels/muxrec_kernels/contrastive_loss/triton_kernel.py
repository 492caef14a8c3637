"""Contrastive cross-entropy in Triton: tiles of scores live in registers and are never stored.

With scores ``s_qc = scale * <q, c> + term_c`` over the entries that are not ignored:

    lse_q = log sum_c exp(s_qc)        p_qc = exp(s_qc - lse_q)
    loss_q = lse_q - sum_p share_qp * s_qp
    d loss_q / d s_qc = p_qc - share_qc

Everything runs in powers of two: the terms, scores and ``lse`` of these kernels are multiplied by
log2(e). A term of minus infinity takes a whole row or column out: rows that ask for nothing,
missing candidates, places beyond the last. An ignored entry is minus infinity (or a probability of
0) inside its tile; nothing is subtracted from a finished sum, which would cancel.

The dense passes know no positives: they add ``p * c`` only. One program per row then subtracts the
few positives' shares, and adds what a 16-bit operand rounded off their ``p``: where a positive
holds nearly all of the mass, ``p - share`` is far smaller than that rounding.

No atomics: every output has one program and a fixed order, so all runs give the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from muxrec_kernels.contrastive_loss.score_tile import (
    BEYOND,
    hide_listed,
    load_tile,
    tile_dots,
)

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def forward_kernel(
    queries,  # [Q, D]
    candidates,  # [C, D]
    scale,  # float32 [1]
    terms,  # float32 [C], times log2(e)
    query_items,  # [Q], read where SAME_ITEM
    candidate_items,  # [C]
    offsets,  # int64 [Q + 1]: ignored columns of each query, read where LISTED
    listed,  # int64 [n]
    out,  # float32 [splits, Q]: lse of the split's columns, times log2(e)
    query_count,  # Q
    candidate_count,  # C
    span,  # columns of a split, a multiple of COLUMNS
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SAME_ITEM: tl.constexpr,
    LISTED: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    in_rows = row < query_count
    factor = tl.load(scale) * LOG2_E
    if CHUNK == D_PADDED:
        held = load_tile(queries, row, query_count, 0, D, CHUNK, AS_FLOAT32)
    if SAME_ITEM:
        item = tl.load(query_items + row, mask=in_rows, other=0)
    if LISTED:
        at = tl.load(offsets + row, mask=in_rows, other=0)
        stop = tl.load(offsets + row + 1, mask=in_rows, other=0)
        following = tl.load(listed + at, mask=at < stop, other=BEYOND).to(tl.int32)

    top = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    start = tl.program_id(1) * span
    for first in range(start, tl.minimum(start + span, candidate_count), COLUMNS):
        column = first + tl.arange(0, COLUMNS)  # [COLUMNS]
        in_columns = column < candidate_count
        if CHUNK == D_PADDED:
            tile = load_tile(candidates, column, candidate_count, 0, D, CHUNK, AS_FLOAT32)
            dots = tl.dot(held, tl.trans(tile), input_precision=PRECISION)
        else:
            dots = tile_dots(
                queries, candidates, row, column, query_count, candidate_count,
                D, D_PADDED, CHUNK, ROWS, COLUMNS, PRECISION, AS_FLOAT32,
            )  # fmt: skip
        term = tl.load(terms + column, mask=in_columns, other=float("-inf"))
        scores = dots * factor + term[None, :]  # [ROWS, COLUMNS]
        if SAME_ITEM:
            other = tl.load(candidate_items + column, mask=in_columns, other=0)
            scores = tl.where(item[:, None] == other[None, :], float("-inf"), scores)
        if LISTED:
            scores, at, following = hide_listed(
                scores, at, following, stop, listed, column, first + COLUMNS, float("-inf")
            )
        higher = tl.maximum(top, tl.max(scores, axis=1))
        # A row of ignored entries has no maximum yet; -inf minus -inf is not a number.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        sums = sums * tl.exp2(top - base) + tl.sum(tl.exp2(scores - base[:, None]), axis=1)
        top = higher
    target = out + tl.program_id(1).to(tl.int64) * query_count + row
    # The largest score adds 1; without any, the sum of 0 has no logarithm.
    tl.store(target, top + tl.log2(tl.maximum(sums, 1.0)), mask=in_rows)


@triton.jit
def positives_kernel(
    queries,  # [Q, D]
    candidates,  # [C, D]
    scale,  # float32 [1]
    terms,  # float32 [C], times log2(e)
    parts,  # float32 [SPLITS, Q]
    offsets,  # int64 [Q + 1]: positives of each query
    columns,  # int64 [P]
    weights,  # float32 [P]
    query_items,  # [Q], read where SAME_ITEM
    candidate_items,  # [C]
    ignored_offsets,  # int64 [Q + 1], read where LISTED
    listed,  # int64 [n]
    missing,  # bool [Q], read where MISSING
    scores,  # out: float32 [P], times log2(e); -inf where the positive is ignored
    kept,  # out: float32 [P]: its weight, 0 where it is ignored
    query_terms,  # out: float32 [Q]: -lse times log2(e); -inf where nothing is asked
    inverse,  # out: float32 [Q]: 1 / the row's weight; 0 where nothing is asked
    losses,  # out: float32 [Q]; 0 where nothing is asked
    query_count,  # Q
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLITS_PADDED: tl.constexpr,
    SAME_ITEM: tl.constexpr,
    LISTED: tl.constexpr,
    MISSING: tl.constexpr,
):
    query = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS_PADDED)
    part = tl.load(parts + split * query_count + query, mask=split < SPLITS, other=float("-inf"))
    top = tl.max(part, axis=0)
    base = tl.where(top == float("-inf"), 0.0, top)
    lse = base + tl.log2(tl.maximum(tl.sum(tl.exp2(part - base), axis=0), 1.0))

    factor = tl.load(scale) * LOG2_E
    width = tl.arange(0, D_PADDED)  # [D_PADDED]
    in_width = width < D
    own = tl.load(queries + query * D + width, mask=in_width, other=0.0).to(tl.float32)
    start = tl.load(offsets + query)
    stop = tl.load(offsets + query + 1)
    total = tl.zeros([LANES], tl.float32)
    weighted = tl.zeros([LANES], tl.float32)
    for step in range(start, stop, LANES):
        at = step + tl.arange(0, LANES)  # [LANES]
        alive = at < stop
        column = tl.load(columns + at, mask=alive, other=0)
        term = tl.load(terms + column, mask=alive, other=float("-inf"))
        hidden = term == float("-inf")
        if SAME_ITEM:
            item = tl.load(candidate_items + column, mask=alive, other=0)
            hidden |= item == tl.load(query_items + query)
        if LISTED:
            last = tl.load(ignored_offsets + query + 1)
            for place in range(tl.load(ignored_offsets + query), last):
                hidden |= column == tl.load(listed + place)
        if MISSING:
            hidden |= tl.load(missing + query) != 0
        address = candidates + column[:, None] * D + width[None, :]  # [LANES, D_PADDED]
        other = tl.load(address, mask=alive[:, None] & in_width[None, :], other=0.0)
        score = tl.sum(own[None, :] * other.to(tl.float32), axis=1) * factor + term
        weight = tl.where(hidden, 0.0, tl.load(weights + at, mask=alive, other=0.0))
        tl.store(scores + at, tl.where(hidden, float("-inf"), score), mask=alive)
        tl.store(kept + at, weight, mask=alive)
        total += weight
        weighted += weight * tl.where(hidden, 0.0, score)

    weight = tl.sum(total, axis=0)
    asks = weight > 0.0
    share = tl.where(asks, 1.0 / tl.where(asks, weight, 1.0), 0.0)
    loss = (lse - tl.sum(weighted, axis=0) * share) * LN_2
    tl.store(query_terms + query, tl.where(asks, -lse, float("-inf")))
    tl.store(inverse + query, share)
    tl.store(losses + query, tl.where(asks, loss, 0.0))


@triton.jit
def gradient_kernel(
    rows,  # [R, D]: queries, or candidates
    columns,  # [N, D]: the other side
    scale,  # float32 [1]
    row_terms,  # float32 [R], times log2(e)
    column_terms,  # float32 [N], times log2(e)
    row_items,  # [R], read where SAME_ITEM
    column_items,  # [N]
    offsets,  # int64 [R + 1]: ignored columns of each row, read where LISTED
    listed,  # int64 [n]
    out,  # float32 [splits, R, D]: sum over the split's columns of p * column
    row_count,  # R
    column_count,  # N
    span,  # columns of a split, a multiple of COLUMNS
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SAME_ITEM: tl.constexpr,
    LISTED: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    in_rows = row < row_count
    factor = tl.load(scale) * LOG2_E
    held = load_tile(rows, row, row_count, 0, D, D_PADDED, AS_FLOAT32)
    row_term = tl.load(row_terms + row, mask=in_rows, other=float("-inf"))
    if SAME_ITEM:
        item = tl.load(row_items + row, mask=in_rows, other=0)
    if LISTED:
        at = tl.load(offsets + row, mask=in_rows, other=0)
        stop = tl.load(offsets + row + 1, mask=in_rows, other=0)
        following = tl.load(listed + at, mask=at < stop, other=BEYOND).to(tl.int32)

    sums = tl.zeros([ROWS, D_PADDED], tl.float32)
    start = tl.program_id(1) * span
    for first in range(start, tl.minimum(start + span, column_count), COLUMNS):
        column = first + tl.arange(0, COLUMNS)  # [COLUMNS]
        in_columns = column < column_count
        tile = load_tile(columns, column, column_count, 0, D, D_PADDED, AS_FLOAT32)
        dots = tl.dot(held, tl.trans(tile), input_precision=PRECISION)
        term = tl.load(column_terms + column, mask=in_columns, other=float("-inf"))
        shares = tl.exp2(dots * factor + term[None, :] + row_term[:, None])  # [ROWS, COLUMNS]
        if SAME_ITEM:
            other = tl.load(column_items + column, mask=in_columns, other=0)
            shares = tl.where(item[:, None] == other[None, :], 0.0, shares)
        if LISTED:
            shares, at, following = hide_listed(
                shares, at, following, stop, listed, column, first + COLUMNS, 0.0
            )
        sums = tl.dot(shares.to(tile.dtype), tile, sums, input_precision=PRECISION)

    width = tl.arange(0, D_PADDED)  # [D_PADDED]
    place = tl.program_id(1).to(tl.int64) * row_count + row
    target = out + place[:, None] * D + width[None, :]
    tl.store(target, sums, mask=in_rows[:, None] & (width < D)[None, :])


@triton.jit
def slab_kernel(
    rows,  # [R, D]: some of the queries
    columns,  # [N, D]: all candidates
    scale,  # float32 [1]
    row_terms,  # float32 [R], times log2(e)
    column_terms,  # float32 [N], times log2(e)
    row_items,  # [R], read where SAME_ITEM
    column_items,  # [N]
    offsets,  # int64 [R + 1]: ignored columns of each row, read where LISTED
    listed,  # int64 [n]
    out,  # [R, stride]: p in the first N columns, in the vectors' own type
    row_count,  # R
    column_count,  # N
    stride,  # a multiple of 16
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SAME_ITEM: tl.constexpr,
    LISTED: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    in_rows = row < row_count
    first = tl.program_id(1) * COLUMNS
    column = first + tl.arange(0, COLUMNS)  # [COLUMNS]
    in_columns = column < column_count
    dots = tile_dots(
        rows, columns, row, column, row_count, column_count,
        D, D_PADDED, CHUNK, ROWS, COLUMNS, PRECISION, AS_FLOAT32,
    )  # fmt: skip
    row_term = tl.load(row_terms + row, mask=in_rows, other=float("-inf"))
    term = tl.load(column_terms + column, mask=in_columns, other=float("-inf"))
    factor = tl.load(scale) * LOG2_E
    shares = tl.exp2(dots * factor + term[None, :] + row_term[:, None])  # [ROWS, COLUMNS]
    if SAME_ITEM:
        item = tl.load(row_items + row, mask=in_rows, other=0)
        other = tl.load(column_items + column, mask=in_columns, other=0)
        shares = tl.where(item[:, None] == other[None, :], 0.0, shares)
    if LISTED:
        at = tl.load(offsets + row, mask=in_rows, other=0)
        stop = tl.load(offsets + row + 1, mask=in_rows, other=0)
        following = tl.load(listed + at, mask=at < stop, other=BEYOND).to(tl.int32)
        shares, at, following = hide_listed(
            shares, at, following, stop, listed, column, first + COLUMNS, 0.0
        )
    target = out + row.to(tl.int64)[:, None] * stride + column[None, :]
    tl.store(target, shares.to(out.dtype.element_ty), mask=in_rows[:, None] & in_columns[None, :])


@triton.jit
def finish_kernel(
    parts,  # float32 [SPLITS, R, D]: dense sums of p * other side
    own,  # [R, D]
    others,  # [N, D]
    offsets,  # int64 [R + 1]: positives of each row
    places,  # int64 [P]: row of ``others``
    entries,  # int64 [P]: number of the positive, read where BY_CANDIDATE
    scores,  # float32 [P], times log2(e)
    kept,  # float32 [P]
    query_terms,  # float32 [Q]
    inverse,  # float32 [Q]
    factor,  # float32 [1]
    out,  # float32 [R, D]: gradient
    dots,  # float32 [R]: <own, sum before the factor>, written where not BY_CANDIDATE
    row_count,  # R
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    SPLITS: tl.constexpr,
    BY_CANDIDATE: tl.constexpr,
    BITS: tl.constexpr,  # the dense passes' p: 32 exact, 16 bfloat16, 10 float16 times 2 ** SHIFT
    SHIFT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    width = tl.arange(0, D_PADDED)  # [D_PADDED]
    in_width = width < D
    dense = tl.zeros([D_PADDED], tl.float32)
    for split in range(SPLITS):
        part = parts + (split * row_count + row) * D
        dense += tl.load(part + width, mask=in_width, other=0.0)

    sparse = tl.zeros([LANES, D_PADDED], tl.float32)
    stop = tl.load(offsets + row + 1)
    for step in range(tl.load(offsets + row), stop, LANES):
        at = step + tl.arange(0, LANES)  # [LANES]
        alive = at < stop
        place = tl.load(places + at, mask=alive, other=0)
        entry, query = at, row
        if BY_CANDIDATE:
            entry = tl.load(entries + at, mask=alive, other=0)
            query = place
        weight = tl.load(kept + entry, mask=alive, other=0.0)
        change = -weight * tl.load(inverse + query)
        if BITS != 32:
            score = tl.load(scores + entry, mask=alive, other=float("-inf"))
            held = tl.exp2(score + tl.load(query_terms + query) + SHIFT)
            if BITS == 16:
                rounded = held.to(tl.bfloat16).to(tl.float32)
            else:
                rounded = held.to(tl.float16).to(tl.float32)
            change += (held - rounded) * 2.0**-SHIFT
        address = others + place[:, None] * D + width[None, :]  # [LANES, D_PADDED]
        other = tl.load(address, mask=alive[:, None] & in_width[None, :], other=0.0)
        sparse += change[:, None] * other.to(tl.float32)

    sums = dense * 2.0**-SHIFT + tl.sum(sparse, axis=0)
    if not BY_CANDIDATE:
        mine = tl.load(own + row * D + width, mask=in_width, other=0.0).to(tl.float32)
        tl.store(dots + row, tl.sum(mine * sums, axis=0))
    tl.store(out + row * D + width, sums * tl.load(factor), mask=in_width)
