"""Codes of 4 or 2 bits in bytes, unpacked by float arithmetic.

A row's bytes hold its codes plane by plane: with p codes per byte, byte j of q holds the codes of
the numbers ``j, q + j, 2q + j, ...`` from the lowest bits up. So unpacking is arithmetic on whole
rows and one concatenation; neighbours in one byte would have to be woven together number by number.

Floats divide a byte exactly, and onnxruntime's float operations are vector code while its bit masks
are not: 103 us of CPU against 124 for 2,560 rows of 32. The exporter's shifts are of int64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_width(width: int, bits: int) -> int:
    """Bytes of one row; bits that are left over stay unused."""
    return -(-width * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes below ``2**bits``, uint8 ``[n, d]`` -> bytes, uint8 ``[n, packed_width]``."""
    planes, size = 8 // bits, packed_width(codes.shape[1], bits)
    padded = F.pad(codes, (0, planes * size - codes.shape[1])).view(-1, planes, size)
    packed = padded[:, 0]
    for plane in range(1, planes):
        packed = packed | padded[:, plane] << bits * plane
    return packed


def unpack(packed: Tensor, bits: int, width: int) -> Tensor:
    """Bytes, uint8 ``[n, packed_width]`` -> codes as float32 ``[n, d]``."""
    base, rest = 2.0**bits, packed.to(torch.float32)
    planes = []
    for _ in range(8 // bits - 1):
        upper = torch.floor(rest * (1 / base))
        planes.append(rest - upper * base)
        rest = upper
    return torch.cat([*planes, rest], dim=1)[:, :width]
