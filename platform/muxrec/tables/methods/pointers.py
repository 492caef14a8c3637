"""Integers that point at rows, in as few bytes as they need."""

from __future__ import annotations

import torch
from torch import Tensor

TYPES = (torch.uint8, torch.int16, torch.int32)


def pointer_bytes(rows: int) -> int:
    """Bytes of a pointer at one of ``rows`` rows: 1, 2 or 4."""
    return next(t.itemsize for t in TYPES if rows - 1 <= torch.iinfo(t).max)


def smallest_integers(pointers: Tensor) -> Tensor:
    """``pointers``, at least 0, in the smallest type that holds the largest; the same shape."""
    size = pointer_bytes(int(pointers.max()) + 1 if pointers.numel() else 1)
    return pointers.to(next(t for t in TYPES if t.itemsize == size))
