"""How much of its work a program of a lookup kernel holds at once; shared by the lookups."""

from __future__ import annotations

from typing import NamedTuple

TILE_NUMBERS = 1024
"""Numbers in flight per program: 4 KiB of float32 rows, 32 registers in each of 32 threads."""


class Tile(NamedTuple):
    """Shape of a forward program: bags, ids of each bag in flight, warps."""

    bags: int
    lanes: int
    warps: int


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is at least ``number``, itself at least 1."""
    return 1 << (number - 1).bit_length()


def choose_tile(width: int, mean_length: float) -> Tile:
    """The tile for rows of ``width`` numbers and bags of ``mean_length`` ids on average.

    Short bags leave lanes idle, so several share a program; a long bag takes all lanes of one. The
    sizes are powers of two and follow from bytes in flight; they wait for tuning on a device.
    """
    slots = max(1, min(32, TILE_NUMBERS // next_power_of_2(width)))
    wanted = next_power_of_2(max(1, round(mean_length)))
    lanes = min(slots, wanted, 16)
    return Tile(bags=slots // lanes, lanes=lanes, warps=1 if width <= 256 else 2)


def segment_lanes(width: int) -> int:
    """Gradient vectors of ``width`` numbers that a backward program has in flight."""
    return max(1, min(32, TILE_NUMBERS // 2 // next_power_of_2(width)))
