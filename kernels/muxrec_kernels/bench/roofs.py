"""What the memory itself gives: random rows and streaming copies, measured in the same run.

A kernel that looks rows up cannot be faster than reading as many random rows of that size and doing
nothing with them; that is the roof it is measured by, not the data sheet's bandwidth.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.bench import triton_kernel
from muxrec_kernels.bench.timing import time_calls

TABLE_BYTES = 4 * 2**30
SHAPES = ((8, 1), (16, 1), (32, 1), (32, 2), (64, 4))
"""Rows in flight and warps of a program; the best of them is the roof."""
INDEX_BYTES = 8
LOOKUPS = 64 * 2**20
"""Rows of up to 128 bytes read per call; fewer of larger ones."""
ROUNDS = 15
KERNELS: ModuleType = triton_kernel


class Roof(NamedTuple):
    """Bandwidth of random rows of one size, or of a copy.

    Attributes:
        row_bytes: Bytes per row; 0 for the copy.
        bytes_per_s: Counted as the traffic model counts: rows and their int64 numbers.
        shape: Rows in flight and warps of the fastest program; ``()`` for the copy.
    """

    row_bytes: int
    bytes_per_s: float
    shape: tuple[int, ...]


def gather_rows(table: Tensor, rows: Tensor, *, lanes: int, steps: int, warps: int) -> Tensor:
    """Sums of every ``lanes * steps`` rows, int32 ``[N / (lanes * steps), words]``.

    Args:
        table: int32 ``[R, words]``, a power of two wide.
        rows: int64 ``[N]``, N a multiple of ``lanes * steps``.
        lanes: Rows in flight.
        steps: Loads after another.
        warps: Warps per program.
    """
    programs = rows.numel() // (lanes * steps)
    out = torch.empty(programs, table.shape[1], dtype=torch.int32, device=table.device)
    KERNELS.gather_kernel[(programs,)](
        table, rows, out, WORDS=table.shape[1], LANES=lanes, STEPS=steps, num_warps=warps
    )
    return out


def gather_roof(
    row_bytes: int, device: torch.device, *, table_bytes: int = TABLE_BYTES, lookups: int = LOOKUPS
) -> Roof:
    """The best bandwidth of random rows of ``row_bytes``, a power of two from 16 to 4,096.

    Rows of other sizes are measured by the next power of two below, since what they touch beyond it
    is counted in their own traffic.
    """
    words = _power_of_two_below(row_bytes) // 4
    count = table_bytes // (4 * words)
    table = torch.zeros(count, words, dtype=torch.int32, device=device)
    lookups //= max(1, words // 32)
    sets = [torch.randint(count, (lookups,), device=device) for _ in range(2)]
    best = Roof(row_bytes, 0.0, ())
    for lanes, warps in SHAPES:
        steps = max(1, 32 // lanes)

        def call(at: int, lanes: int = lanes, steps: int = steps, warps: int = warps) -> Tensor:
            return gather_rows(table, sets[at % 2], lanes=lanes, steps=steps, warps=warps)

        moved = lookups * (4 * words + INDEX_BYTES) + lookups // (lanes * steps) * 4 * words
        rate = moved / (_median(call) / 1e3)
        if rate > best.bytes_per_s:
            best = Roof(row_bytes, rate, (lanes, warps))
    return best


def copy_roof(device: torch.device, *, table_bytes: int = TABLE_BYTES) -> Roof:
    """Bandwidth of a copy, bytes read and written."""
    source = torch.zeros(table_bytes // 8, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    milliseconds = _median(lambda _: target.copy_(source))
    return Roof(0, 2 * source.nbytes / (milliseconds / 1e3), ())


def _median(call: Callable[[int], object]) -> float:
    return statistics.median(time_calls({"roof": call}, rounds=ROUNDS)["roof"])


def _power_of_two_below(number: int) -> int:
    return 1 << max(4, min(12, number.bit_length() - 1))
