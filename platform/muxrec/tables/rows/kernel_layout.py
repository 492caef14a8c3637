"""Rows as fbgemm's inference kernels read them: whole codes, and two float16 per row.

fbgemm's own quantiser takes levels from a row's smallest to its largest number; these are the
levels of :mod:`muxrec.tables.rows.levels`, in its layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec.tables.rows.blocks import check_weight, row_blocks
from muxrec.tables.rows.levels import fit_levels, nearest_levels

BITS = {"int8": 8, "int4": 4, "int2": 2}
ROW_ALIGNMENT = {"cpu": 1, "cuda": 16}
"""Bytes that a row is filled up to a multiple of; the GPU's kernels load 16 at a time."""
TABLE_ALIGNMENT = 128
LEVEL_BYTES = 4
LARGEST = 32752.0
"""So that the range of a row is a float16 too."""


def quantised_bytes(rows: int, width: int, *, dtype: str, device: str = "cpu") -> int:
    """Bytes of one table in :class:`muxrec.tables.inference.QuantisedBags`, before it is made.

    Args:
        rows: R.
        width: d.
        dtype: ``int8``, ``int4`` or ``int2``.
        device: ``cpu`` or ``cuda``.
    """
    each = kernel_width(width, dtype) * BITS[dtype] // 8 + LEVEL_BYTES
    return _round_up(rows * _round_up(each, ROW_ALIGNMENT[device]), TABLE_ALIGNMENT)


def kernel_width(width: int, dtype: str) -> int:
    """Numbers of a row in the kernels: a multiple of four whose codes fill pairs of bytes."""
    return _round_up(width, max(4, 16 // BITS[dtype]))


def kernel_rows(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Codes and levels of float32 rows ``[R, d]``, uint8 ``[R, bytes]`` and ``[R, 4]``.

    Raises:
        ValueError: The weight has another shape or dtype, or a number that is not finite or above
            32752 in magnitude.
    """
    weight = check_weight(weight, what=dtype, largest=LARGEST)
    bits, (rows, width) = BITS[dtype], weight.shape
    held = kernel_width(width, dtype)
    codes = weight.new_empty(rows, held * bits // 8, dtype=torch.uint8)
    levels = weight.new_empty(rows, 2, dtype=torch.float16)
    top = 2**bits - 1
    for block in row_blocks(rows, width):
        numbers = weight[block]
        levels[block] = fit_levels(numbers, top)
        nearest = nearest_levels(numbers, levels[block], top).to(torch.uint8)
        codes[block] = _weave(F.pad(nearest, (0, held - width)), bits)
    return codes, levels.view(torch.uint8)


def _weave(codes: Tensor, bits: int) -> Tensor:
    """Codes side by side, the first in a byte's lowest bits."""
    each = 8 // bits
    shifts = bits * torch.arange(each, device=codes.device)
    return (codes.view(len(codes), -1, each).to(torch.int32) << shifts).sum(dim=2).to(torch.uint8)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
