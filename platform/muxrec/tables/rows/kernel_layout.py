"""Rows as kernels on a table of codes read them: whole codes, and two float16 per row.

fbgemm's inference kernels want codes and levels apart and put the levels first; those of
:mod:`muxrec_kernels.quantised_lookup` read rows that end with them. The numbers are the same. Where
fbgemm's own quantiser takes levels from a row's smallest to its largest number, these are the ones
of :mod:`muxrec.tables.rows.levels`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec.tables.rows.blocks import check_weight, row_blocks
from muxrec.tables.rows.levels import fit_levels, nearest_levels
from muxrec_kernels.quantised_lookup import pack_codes, pack_rows, packed_row_bytes

BITS = {"int8": 8, "int4": 4, "int2": 2}
ROW_ALIGNMENT = {"cpu": 1, "cuda": 16}
"""Bytes that a row is filled up to a multiple of; the GPU's kernels load 16 at a time."""
TABLE_ALIGNMENT = 128
LEVEL_BYTES = 4
LARGEST = 32752.0
"""So that the range of a row is a float16 too."""


def quantised_bytes(
    rows: int, width: int, *, dtype: str, device: str = "cpu", kernel: str = "fbgemm"
) -> int:
    """Bytes of one table in :class:`muxrec.tables.inference.InferenceTables`, before it is made.

    Args:
        rows: R.
        width: d.
        dtype: ``int8``, ``int4`` or ``int2``.
        device: ``cpu`` or ``cuda``.
        kernel: ``fbgemm`` or ``muxrec``, whose rows are the same on all devices.
    """
    if kernel == "muxrec":
        return rows * packed_row_bytes(width, BITS[dtype])
    each = kernel_width(width, dtype) * BITS[dtype] // 8 + LEVEL_BYTES
    return _round_up(rows * _round_up(each, ROW_ALIGNMENT[device]), TABLE_ALIGNMENT)


def kernel_width(width: int, dtype: str) -> int:
    """Numbers of a row in the kernels: a multiple of four whose codes fill pairs of bytes."""
    return _round_up(width, max(4, 16 // BITS[dtype]))


def kernel_rows(weight: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Codes and levels of float32 rows ``[R, d]`` for fbgemm, uint8 ``[R, bytes]`` and ``[R, 4]``.

    Raises:
        ValueError: The weight has another shape or dtype, or a number that is not finite or above
            32752 in magnitude.
    """
    weight = check_weight(weight, what=dtype, largest=LARGEST)
    bits, (rows, width) = BITS[dtype], weight.shape
    held = kernel_width(width, dtype)
    codes = weight.new_empty(rows, held * bits // 8, dtype=torch.uint8)
    levels = weight.new_empty(rows, 2, dtype=torch.float16)
    for block, nearest, found in _quantised_blocks(weight, bits):
        codes[block] = pack_codes(F.pad(nearest, (0, held - width)), bits)
        levels[block] = found
    return codes, levels.view(torch.uint8)


def packed_rows(weight: Tensor, dtype: str) -> Tensor:
    """The same numbers as rows of this project's kernel, uint8 ``[R, packed_row_bytes]``.

    Raises:
        ValueError: As :func:`kernel_rows`.
    """
    weight = check_weight(weight, what=dtype, largest=LARGEST)
    bits, (rows, width) = BITS[dtype], weight.shape
    packed = weight.new_empty(rows, packed_row_bytes(width, bits), dtype=torch.uint8)
    for block, nearest, found in _quantised_blocks(weight, bits):
        packed[block] = pack_rows(nearest, found, bits)
    return packed


def _quantised_blocks(weight: Tensor, bits: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of rows: which, their codes uint8 ``[n, d]``, their levels float16 ``[n, 2]``."""
    top = 2**bits - 1
    for block in row_blocks(*weight.shape):
        numbers = weight[block]
        levels = fit_levels(numbers, top)
        yield block, nearest_levels(numbers, levels, top).to(torch.uint8), levels


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
