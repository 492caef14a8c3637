"""A tile of the score matrix: its operands, its products, and its listed entries."""

from __future__ import annotations

import triton
import triton.language as tl

BEYOND: tl.constexpr = tl.constexpr(2**31 - 1)


@triton.jit
def load_tile(
    vectors,  # [N, D]
    at,  # int32 [TILE]
    count,  # N
    first,  # first of the CHUNK columns
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    AS_FLOAT32: tl.constexpr,  # the interpreter multiplies bfloat16 by its bits
):
    """Some columns of some vectors, ``[TILE, CHUNK]``; 0 outside."""
    column = first + tl.arange(0, CHUNK)  # [CHUNK]
    # 64-bit addresses: N * D may pass 2**31.                                   [TILE, CHUNK]
    address = vectors + at.to(tl.int64)[:, None] * D + column[None, :]
    tile = tl.load(address, mask=(at < count)[:, None] & (column < D)[None, :], other=0.0)
    if AS_FLOAT32:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def tile_dots(
    rows,
    columns,
    row,  # int32 [ROWS]
    column,  # int32 [COLUMNS]
    row_count,
    column_count,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):
    """Dot products of vectors too wide to be held, float32 [ROWS, COLUMNS], chunk by chunk."""
    dots = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, D_PADDED, CHUNK):
        left = load_tile(rows, row, row_count, first, D, CHUNK, AS_FLOAT32)
        right = load_tile(columns, column, column_count, first, D, CHUNK, AS_FLOAT32)
        dots = tl.dot(left, tl.trans(right), dots, input_precision=PRECISION)
    return dots


@triton.jit
def hide_listed(
    values,  # float32 [ROWS, COLUMNS]
    at,  # int64 [ROWS]: each row's next listed place
    following,  # int32 [ROWS]: the column there, BEYOND after the last
    stop,  # int64 [ROWS]
    listed,  # int64: columns, rising within a row
    column,  # int32 [COLUMNS]
    end,  # first column after the tile
    FILL: tl.constexpr,
):
    """Fill the listed entries of a tile; every row walks on to its first column after it."""
    while tl.min(following, axis=0) < end:
        values = tl.where(following[:, None] == column[None, :], FILL, values)
        at += (following < end).to(tl.int64)
        following = tl.load(listed + at, mask=at < stop, other=BEYOND).to(tl.int32)
    return values, at, following
