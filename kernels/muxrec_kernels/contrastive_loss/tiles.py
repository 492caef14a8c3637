"""How much of the score matrix a program holds at once."""

from __future__ import annotations

from typing import NamedTuple

import torch

from muxrec_kernels.tiles import next_power_of_2

HELD_WIDTH = 256
"""Widest 16-bit vectors whose gradient a program keeps in registers, 128 rows at a time."""

PROGRAMS = 264
"""Programs of a dense pass at least, two per multiprocessor of an H200; few rows are split by
columns until there are as many. A constant, so that sums do not depend on the device."""


class Tile(NamedTuple):
    """Shape of a program: rows, columns and width of a score tile's operands, warps, stages."""

    rows: int
    columns: int
    chunk: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """The programs of one loss.

    Attributes:
        forward: Tile of the log-sum-exp.
        gradient: Tile of the dense gradient pass.
        slabs: Whether the gradient goes through slabs of probabilities in memory: for vectors
            that a program cannot hold, the matrix library's products are faster than computing
            every score once per chunk of the width.
        programs: As many programs are wanted at least.
    """

    forward: Tile
    gradient: Tile
    slabs: bool
    programs: int = PROGRAMS


def ceiling(number: int, part: int) -> int:
    """How many parts of this size cover ``number``."""
    return -(-number // part)


def padded_width(width: int) -> int:
    """The width of a tile in registers; matrix instructions want 16 at least."""
    return max(16, next_power_of_2(width))


def choose_tiles(dtype: torch.dtype, width: int) -> Tiles:
    """Tiles for vectors of ``width`` numbers, a multiple of 8.

    The largest that compile without spills; they wait for tuning on a device. Float32 has no
    matrix instruction of full precision: small tiles of ordinary products.
    """
    padded = padded_width(width)
    if dtype == torch.float32:
        tile = Tile(64, 64, min(padded, 32), warps=8, stages=2)
        return Tiles(tile, tile, slabs=True)
    if padded > HELD_WIDTH:
        tile = Tile(128, 128, 64, warps=8, stages=3)
        return Tiles(tile, tile, slabs=True)
    if padded > HELD_WIDTH // 2:
        forward = Tile(128, 128, padded, warps=8, stages=2)
        return Tiles(forward, Tile(128, 64, padded, warps=8, stages=2), slabs=False)
    tile = Tile(128, 128, padded, warps=8, stages=3)
    return Tiles(tile, tile, slabs=False)


def lanes(width: int) -> int:
    """Positives that a row's program has in flight."""
    return max(1, min(16, 1024 // padded_width(width)))


def row_warps(width: int) -> int:
    """Warps of a row's program."""
    return max(1, min(8, padded_width(width) // 1024))
