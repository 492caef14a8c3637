"""Launches of the scans: counted signs and products, a sample and the rest."""

from __future__ import annotations

import torch

from muxrec_kernels.code_scan import scan_int8, scan_packed, scan_signs
from muxrec_kernels.code_scan.packing import packed_bytes


def signs(queries: int, items: int, k: int, *, size: int = 8, exclude: bool = False) -> None:
    codes = torch.zeros(items, size, dtype=torch.uint8)
    left_out = torch.zeros(queries, dtype=torch.int64) if exclude else None
    scan_signs(torch.zeros(queries, size, dtype=torch.uint8), codes, k, exclude=left_out)


def int8(queries: int, items: int, k: int, dtype: torch.dtype, *, scaled: bool = False) -> None:
    codes = torch.zeros(items, 32, dtype=torch.int8)
    scales = torch.ones(items) if scaled else None
    scan_int8(torch.zeros(queries, 32, dtype=dtype), codes, k, scales=scales)


def packed(queries: int, items: int, k: int, *, bits: int, numbers: int) -> None:
    codes = torch.zeros(items, packed_bytes(32, bits), dtype=torch.uint8)
    steps = torch.ones(numbers)
    scan_packed(torch.zeros(queries, 32), codes, k, bits=bits, steps=steps, offsets=steps)


CALLS = {
    "one of everything": lambda: (signs(1, 1, 1, size=4), int8(1, 1, 1, torch.int8)),
    "no queries": lambda: (signs(0, 5, 1), int8(0, 5, 1, torch.int8)),
    "one query, two items": lambda: packed(1, 2, 1, bits=4, numbers=1),
    "multiples of 16": lambda: signs(16, 1024, 16),
    "a sample and the rest": lambda: int8(3, 128 * 256 + 1, 10, torch.float16, scaled=True),
    "a sample and one tile": lambda: signs(2, 1000, 10, exclude=True),
    "signs of many queries": lambda: signs(32, 100, 10),
}
