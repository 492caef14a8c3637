"""Codes of 1, 2 or 4 bits in bytes.

Plane by plane, as the platform packs its tables' rows: with p codes per byte, byte j of b holds the
codes of the numbers ``j, b + j, 2b + j, ...`` from the lowest bits up. So a plane of a whole row is
one shift and one mask, and no number has to be woven between its neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PACKED_BITS = (1, 2, 4)


def packed_bytes(width: int, bits: int) -> int:
    """Bytes of one item's code of ``width`` numbers; bits that are left over are zero."""
    return -(-width * bits // 8)


def pack_codes(numbers: Tensor, bits: int) -> Tensor:
    """Numbers in fewer bits.

    Args:
        numbers: uint8 ``[N, D]`` in ``[0, 2**bits)``.
        bits: 1, 2 or 4.

    Returns:
        uint8 ``[N, packed_bytes(D, bits)]``.

    Raises:
        ValueError: ``bits`` is none of these, or the numbers are of another dtype or shape.
    """
    if bits not in PACKED_BITS:
        raise ValueError(f"bits must be one of {PACKED_BITS}, got {bits}")
    if numbers.ndim != 2 or numbers.dtype != torch.uint8:
        raise ValueError(f"numbers must be uint8 [N, D], got {numbers.dtype} {numbers.ndim}d")
    planes, size = 8 // bits, packed_bytes(numbers.shape[1], bits)
    padded = F.pad(numbers, (0, planes * size - numbers.shape[1]))
    packed = torch.zeros(len(numbers), size, dtype=torch.uint8, device=numbers.device)
    for plane in range(planes):
        packed |= padded[:, plane * size : (plane + 1) * size] << bits * plane
    return packed


def unpack_codes(packed: Tensor, bits: int, width: int) -> Tensor:
    """What ``pack_codes`` packed: uint8 ``[N, packed_bytes(width, bits)]`` -> ``[N, width]``."""
    planes = [(packed >> bits * plane) & (2**bits - 1) for plane in range(8 // bits)]
    return torch.cat(planes, dim=1)[:, :width]


def pack_signs(vectors: Tensor) -> Tensor:
    """Sign codes of vectors: a bit per number, 1 where it is above zero.

    Args:
        vectors: floating-point ``[N, D]``.

    Returns:
        uint8 ``[N, packed_bytes(D, 1)]``. Two codes differ in as many bits as signs differ.
    """
    return pack_codes((vectors > 0).to(torch.uint8), 1)
