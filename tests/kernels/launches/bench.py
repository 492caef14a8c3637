"""Launches of the kernel that measures the memory's roof."""

from __future__ import annotations

import torch

from muxrec_kernels.bench.roofs import SHAPES, gather_rows


def gather(words: int, programs: int, shapes: tuple[tuple[int, int], ...]) -> None:
    for lanes, warps in shapes:
        steps = max(1, 32 // lanes)
        rows = torch.zeros(programs * lanes * steps, dtype=torch.int64)
        table = torch.zeros(1, words, dtype=torch.int32)
        gather_rows(table, rows, lanes=lanes, steps=steps, warps=warps)


CALLS = {
    "one of everything": lambda: gather(4, 1, SHAPES[:1]),
    "rows of 256 bytes": lambda: gather(64, 3, SHAPES),
}
