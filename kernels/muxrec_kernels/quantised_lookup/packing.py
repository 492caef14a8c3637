"""Rows of codes of 8, 4 or 2 bits with their levels, as the lookup kernel reads them.

A row is ``ceil(d * bits / 8)`` bytes of codes side by side, the first in a byte's lowest bits (as
in fbgemm's inference kernels), nothing up to the last four bytes, and there two float16: step and
offset. Number c of a row is ``offset + step * code[c]``. Rows are multiples of 16 bytes, so that
codes load 16 bytes at a time; levels before the codes, as fbgemm lays them, would shift these.

Memory moves in sectors of 32 bytes. A width whose codes and levels fill 32, 64, 128, ... bytes
wastes none: 120 numbers of 4 bits take two sectors where 128 take three. Such widths are
*sector-exact*.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = (8, 4, 2)
LEVEL_BYTES = 4
ROW_ALIGNMENT = 16
SECTOR_BYTES = 32


def packed_row_bytes(width: int, bits: int) -> int:
    """Bytes of one row: its codes and levels, up to a multiple of 16.

    Args:
        width: d, at least 1.
        bits: 8, 4 or 2.

    Raises:
        ValueError: There is no such width or number of bits.
    """
    return _round_up(_code_bytes(width, bits) + LEVEL_BYTES, ROW_ALIGNMENT)


def row_sectors(width: int, bits: int) -> int:
    """Sectors of 32 bytes that reading one row touches, wherever in the table it lies.

    A row of an odd number of 16 bytes begins in the middle of a sector or ends there.
    """
    return _round_up(packed_row_bytes(width, bits), SECTOR_BYTES) // SECTOR_BYTES


def sector_exact_width(width: int, bits: int) -> int:
    """The sector-exact width nearest to ``width``, the smaller of two: 124 for 128 numbers of int8.

    For int8 28, 60, 124, 252, ...; for int4 56, 120, 248, ...; for int2 112, 240, ...

    Args:
        width: A wanted d, at least 1.
        bits: 8, 4 or 2.

    Raises:
        ValueError: There is no such width or number of bits.
    """
    wanted = _code_bytes(width, bits) * 8 // bits
    row, exact = SECTOR_BYTES, [(SECTOR_BYTES - LEVEL_BYTES) * 8 // bits]
    while exact[-1] < wanted:
        row *= 2
        exact.append((row - LEVEL_BYTES) * 8 // bits)
    return min(exact, key=lambda found: abs(found - width))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes side by side, uint8 ``[n, ceil(d * bits / 8)]``, the first in a byte's lowest bits.

    Args:
        codes: Codes below ``2**bits``, uint8 ``[n, d]``.
        bits: 8, 4 or 2.
    """
    each = 8 // bits
    padded = F.pad(codes, (0, -codes.shape[1] % each)).view(len(codes), -1, each)
    packed = padded[:, :, 0]
    for place in range(1, each):
        packed = packed | padded[:, :, place] << bits * place
    return packed


def unpack_codes(packed: Tensor, width: int, bits: int) -> Tensor:
    """Codes, uint8 ``[n, width]``, of bytes as :func:`pack_codes` makes them.

    Args:
        packed: uint8 ``[n, at least ceil(width * bits / 8)]``.
        width: d.
        bits: 8, 4 or 2.
    """
    used = packed[:, : _code_bytes(width, bits)]
    places = [used >> bits * place & 2**bits - 1 for place in range(8 // bits)]
    return torch.stack(places, dim=2).flatten(1)[:, :width]


def pack_rows(codes: Tensor, levels: Tensor, bits: int) -> Tensor:
    """Rows of codes and levels, uint8 ``[n, packed_row_bytes(d, bits)]``.

    Args:
        codes: Codes below ``2**bits``, uint8 ``[n, d]``.
        levels: Step and offset of each row, float16 ``[n, 2]``.
        bits: 8, 4 or 2.

    Raises:
        ValueError: Codes or levels are of another dtype or shape.
    """
    if codes.dtype != torch.uint8 or codes.dim() != 2:
        raise ValueError(f"codes must be uint8 [n, d], got {codes.dtype} {list(codes.shape)}")
    if levels.dtype != torch.float16 or levels.shape != (len(codes), 2):
        raise ValueError(
            f"levels must be a step and an offset per row, float16 [{len(codes)}, 2], got "
            f"{levels.dtype} {list(levels.shape)}"
        )
    packed = pack_codes(codes, bits)
    rows = codes.new_zeros(len(codes), packed_row_bytes(codes.shape[1], bits))
    rows[:, : packed.shape[1]] = packed
    rows[:, -LEVEL_BYTES:] = levels.contiguous().view(torch.uint8)
    return rows


def unpack_rows(
    packed: Tensor, width: int, bits: int, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The numbers that packed rows stand for, ``[n, width]``.

    Args:
        packed: Rows as :func:`pack_rows` makes them, uint8 ``[n, bytes]``.
        width: d.
        bits: 8, 4 or 2.
        dtype: float32, or float64, in which they are exact.
    """
    levels = packed[:, -LEVEL_BYTES:].contiguous().view(torch.float16).to(dtype)
    return unpack_codes(packed, width, bits).to(dtype) * levels[:, :1] + levels[:, 1:]


def _code_bytes(width: int, bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    return -(-width * bits // 8)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
