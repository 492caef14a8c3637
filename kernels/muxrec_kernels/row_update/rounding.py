"""Rows of 16 bits, the maths: random bits by hashing, and float32 to fp16 or bf16 with them.

Everything is integers, so that the kernel repeats it bit by bit. A number between two neighbours
of the narrow type becomes the upper one with the probability of its distance from the lower: its
magnitude's dropped bits plus a random number of as many bits carry over or they do not. On average
nothing is lost, even where an update is far smaller than half a step.

Source: counter-based generators, Salmon et al. 2011; 32-bit mixer, Wellons' hash-prospector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.row_update.rule import Rule, rounding_keys

WORD = 2**32 - 1
COLUMN_STEP = 0x9E3779B9
MOST_SHIFT = 31
"""Dropped bits that fp16's smallest numbers are rounded by; a mantissa has 24."""


def random_words(rule: Rule, rows: Tensor, width: int) -> Tensor:
    """32 random bits for every number of some rows, int64 ``[U, width]``.

    They depend on the rule's seed and step, the row's number and the column alone.

    Args:
        rule: Its ``seed`` and ``step`` are read.
        rows: Row numbers, int64 ``[U]``.
        width: d.
    """
    low, high = (key & WORD for key in rounding_keys(rule))
    row = _mix32((_mix32(rows ^ low) + high) & WORD)
    columns = torch.arange(width, device=rows.device) * COLUMN_STEP
    return _mix32((row[:, None] + columns) & WORD)


def round_rows(values: Tensor, dtype: torch.dtype, words: Tensor | None) -> Tensor:
    """float32 numbers in a type of 16 bits.

    Args:
        values: float32, any shape.
        dtype: ``torch.float16`` or ``torch.bfloat16``.
        words: 32 random bits for each number, int64, to round stochastically; None to round to
            the nearest, ties to even.
    """
    bits = values.contiguous().view(torch.int32).long() & WORD
    magnitude = bits & 0x7FFFFFFF
    rounded = (_to_bf16 if dtype == torch.bfloat16 else _to_fp16)(magnitude, words)
    rounded = rounded | bits >> 31 << 15
    return torch.where(rounded >= 2**15, rounded - 2**16, rounded).short().view(dtype)


def _to_bf16(magnitude: Tensor, words: Tensor | None) -> Tensor:
    rounded = _drop(magnitude, torch.full_like(magnitude, 16), words)
    return torch.where(magnitude > 0x7F800000, 0x7FC0, rounded)


def _to_fp16(magnitude: Tensor, words: Tensor | None) -> Tensor:
    exponent = magnitude >> 23
    mantissa = (magnitude & 0x7FFFFF) | (exponent > 0).long() << 23
    # 113 is the exponent of 2**-14: below it the type's step no longer shrinks with the number.
    missing = (113 - exponent.clamp(min=1)).clamp(min=0)
    shift = missing + 13
    mantissa = mantissa >> (shift - MOST_SHIFT).clamp(min=0, max=MOST_SHIFT)
    steps = _drop(mantissa, shift.clamp(max=MOST_SHIFT), words)
    rounded = ((exponent.clamp(min=113) - 112) << 10) + steps - 1024
    return torch.where(magnitude > 0x7F800000, 0x7E00, rounded.clamp(max=0x7C00))


def _drop(number: Tensor, shift: Tensor, words: Tensor | None) -> Tensor:
    """``number >> shift``, rounded; a carry into the exponent is the right next number."""
    below = (1 << shift) - 1
    if words is None:
        return (number + (below >> 1) + (number >> shift & 1)) >> shift
    return (number + (words & below)) >> shift


def _mix32(value: Tensor) -> Tensor:
    value = value ^ value >> 16
    value = value * 0x21F0AAAD & WORD
    value = value ^ value >> 15
    value = value * 0x735A2D97 & WORD
    return value ^ value >> 15
