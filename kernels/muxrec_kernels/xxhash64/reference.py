"""XXH64 of 64-bit ids and multiply-shift rows, in int64 torch operations.

Only multiply, add, exclusive or, and, or and shifts by constants: all of them wrap or keep bits the
same way in torch, CUDA and ONNX. torch has no logical shift of an int64, so it is written
``(v >> s) & mask``; ``fmod`` and floor division export to ONNX silently wrong and are absent.

Source: XXH64, xxHash specification 0.1.1 (Yann Collet); range reduction: Lemire 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

P1 = 0x9E3779B185EBCA87 - 2**64
P2 = 0xC2B2AE3D27D4EB4F - 2**64
P3 = 0x165667B19E3779F9
P4 = 0x85EBCA77C2B2AE63 - 2**64
P5_PLUS_8 = 0x27D4EB2F165667C5 + 8
"""XXH64's fifth prime plus the length of an id in bytes."""


def mix_ids(ids: Tensor) -> Tensor:
    """The part of the hash that no seed enters: shared by all probes of one id.

    Args:
        ids: Raw ids, int64, any shape.

    Returns:
        Mixed lanes, int64, same shape; :func:`finish_hashes` turns them into hashes.
    """
    return _rotate_left(ids * P2, 31) * P1


def finish_hashes(lanes: Tensor, seeds: Tensor | int) -> Tensor:
    """Signed XXH64 of the ids behind ``lanes``, int64, the broadcast shape of both.

    Args:
        lanes: Output of :func:`mix_ids`, int64.
        seeds: Signed 64-bit seeds, int64, broadcast against ``lanes``.
    """
    start = seeds + P5_PLUS_8
    if isinstance(start, int):  # A tensor wraps by itself; ONNX has no constant beyond int64.
        start = (start + 2**63) % 2**64 - 2**63
    h = start ^ lanes
    h = _rotate_left(h, 27) * P1 + P4
    h = (h ^ _shift_right(h, 33)) * P2
    h = (h ^ _shift_right(h, 29)) * P3
    return h ^ _shift_right(h, 32)


def reduce_to_rows(hashes: Tensor, rows: Tensor | int) -> Tensor:
    """Rows ``((h >>> 32) * rows) >>> 32``, int64 in ``[0, rows)``, the broadcast shape of both.

    Args:
        hashes: Signed hashes, int64.
        rows: Rows of the physical table in ``[1, 2**31)``: a number or an int64 tensor.
    """
    return (_shift_right(hashes, 32) * rows) >> 32


def hash_rows(ids: Tensor, seeds: Tensor | int, rows: Tensor | int) -> Tensor:
    """The row that each id reads, int64 in ``[0, rows)``, the broadcast shape of all three.

    Args:
        ids: Raw ids, int64.
        seeds: Signed 64-bit probe seeds.
        rows: Rows of the physical table in ``[1, 2**31)``.
    """
    return reduce_to_rows(finish_hashes(mix_ids(ids), seeds), rows)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & (2 ** (64 - bits) - 1)


def _rotate_left(value: Tensor, bits: int) -> Tensor:
    return torch.bitwise_or(value << bits, _shift_right(value, 64 - bits))
