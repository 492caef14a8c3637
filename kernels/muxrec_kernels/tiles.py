"""How much of its work a program of a lookup kernel holds at once; shared by the lookups."""

from __future__ import annotations

from typing import NamedTuple

TILE_NUMBERS = 1024
"""Numbers of 32 bits in flight per program: 4 KiB of rows, 32 registers in each of 32 threads.
4.3 TB/s over 0.7 us of latency are 23 KiB in flight per multiprocessor, which six programs hold."""

MOST_ROWS = 64
STEPS = 4
"""Steps that a bag of mean length should take: copies overlap from the second step on, and the
last step, which is rarely full, is a part of the work."""


class Tile(NamedTuple):
    """Shape of a forward program: bags, ids of each bag in flight, warps."""

    bags: int
    lanes: int
    warps: int


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is at least ``number``, itself at least 1."""
    return 1 << (number - 1).bit_length()


def choose_tile(width: int, mean_length: float, number_bytes: int = 4) -> Tile:
    """The tile for rows of ``width`` numbers and bags of ``mean_length`` ids on average.

    Short bags leave lanes idle, so several share a program; a long bag takes all lanes of one. The
    sizes are powers of two and follow from bytes in flight, so that rows of 16 bits have as many
    bytes on the way as rows of 32; they wait for tuning on a device.
    """
    # Sums are of 32 bits whatever the rows are: twice the numbers fit a thread's registers.
    numbers = TILE_NUMBERS * (1 if number_bytes >= 4 else 2)
    rows = max(1, min(MOST_ROWS, numbers // next_power_of_2(width)))
    lanes = min(rows, next_power_of_2(max(1, -(-round(mean_length) // STEPS))))
    return Tile(bags=rows // lanes, lanes=lanes, warps=1 if width <= 256 else 2)


def segment_lanes(width: int) -> int:
    """Gradient vectors of ``width`` numbers that a backward program has in flight."""
    return max(1, min(32, TILE_NUMBERS // 2 // next_power_of_2(width)))
