"""The fusion gate in Triton: one pass forward, one pass backward.

Per row b and number j, with z in float32 and the m parts so far:

    z = sigmoid(logits) if both sides exist, 0 if only the new one does, else 1
    total = z * fused + (1 - z) * new
    out_parts[i] = z * parts[i] for i < m,  out_parts[m] = (1 - z) * new

and backward, with g of the total and p[i] of the parts:

    d_fused = z * g,  d_parts[i] = z * p[i],  d_new = (1 - z) * (g + p[m])
    d_logits = z * (1 - z) * (g * (fused - new) + sum_i p[i] * parts[i] - p[m] * new)

A program holds ROWS rows of all D numbers. Width, rows and parts are compile-time constants: only
then are rows read with 16-byte loads. Numbers of bfloat16 are rounded and stored as their bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_rounded(pointer, value, mask, BF16: tl.constexpr):
    """Store float32; with BF16 the pointer is of int16 and takes the bits, rounded to even."""
    if BF16:
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # Rounding up a NaN whose bits are all set would give zero.
        rounded = tl.where(value != value, 0x7FC0, rounded)
        tl.store(pointer, rounded.to(tl.uint16).to(tl.int16, bitcast=True), mask=mask)
    else:
        tl.store(pointer, value, mask=mask)


@triton.jit
def gate_of(pre, fused_there, new_there):
    """``(z, 1 - z)``, float32 ``[ROWS, D_PADDED]``; exact zeros and ones where a side is missing.

    The second is ``sigmoid(-logits)``: a difference from z would lose digits near 1.
    """
    z = 1.0 / (1.0 + tl.exp(-pre))
    rest = 1.0 / (1.0 + tl.exp(pre))
    z = tl.where(fused_there[:, None], z, 0.0)
    rest = tl.where(fused_there[:, None], rest, 1.0)
    return tl.where(new_there[:, None], z, 1.0), tl.where(new_there[:, None], rest, 0.0)


@triton.jit
def forward_kernel(
    logits,  # [B, D]
    fused,  # [B, D]
    new,  # [B, D]
    parts,  # [B, PARTS, D]
    is_fused,  # uint8 [B]
    is_new,  # uint8 [B]
    total,  # [B, D]
    out_parts,  # [B, PARTS + 1, D]
    batch,  # B
    logits_stride,
    fused_stride,
    new_stride,
    parts_stride,
    part_step,
    is_fused_stride,
    is_new_stride,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    BF16: tl.constexpr,  # the outputs' pointers are of int16
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    columns = tl.arange(0, D_PADDED)[None, :]
    alive = row < batch
    mask = alive[:, None] & (columns < D)  # [ROWS, D_PADDED]
    fused_there = tl.load(is_fused + row * is_fused_stride, mask=alive, other=0) != 0
    new_there = tl.load(is_new + row * is_new_stride, mask=alive, other=0) != 0
    row = row[:, None]

    pre = tl.load(logits + row * logits_stride + columns, mask=mask, other=0.0)
    z, rest = gate_of(pre.to(tl.float32), fused_there, new_there)  # type: ignore[misc]
    old = tl.load(fused + row * fused_stride + columns, mask=mask, other=0.0)
    added = tl.load(new + row * new_stride + columns, mask=mask, other=0.0)
    added = rest * added.to(tl.float32)
    # D as a constant in every product shows the compiler that 16-byte stores are aligned.
    store_rounded(total + row * D + columns, z * old.to(tl.float32) + added, mask, BF16)
    for i in tl.static_range(PARTS):
        part = tl.load(parts + row * parts_stride + i * part_step + columns, mask=mask, other=0.0)
        target = out_parts + row * ((PARTS + 1) * D) + i * D + columns
        store_rounded(target, z * part.to(tl.float32), mask, BF16)
    target = out_parts + row * ((PARTS + 1) * D) + PARTS * D + columns
    store_rounded(target, added, mask, BF16)


@triton.jit
def backward_kernel(
    logits,  # [B, D]
    fused,  # [B, D]
    new,  # [B, D]
    parts,  # [B, PARTS, D]
    is_fused,  # uint8 [B]
    is_new,  # uint8 [B]
    grad_total,  # [B, D], read where HAS_TOTAL
    grad_parts,  # [B, PARTS + 1, D], read where HAS_PARTS
    d_logits,  # [B, D]
    d_fused,  # [B, D]
    d_new,  # [B, D]
    d_parts,  # [B, PARTS, D]
    batch,  # B
    logits_stride,
    fused_stride,
    new_stride,
    parts_stride,
    part_step,
    is_fused_stride,
    is_new_stride,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_TOTAL: tl.constexpr,
    HAS_PARTS: tl.constexpr,
    LOGITS_BF16: tl.constexpr,  # d_logits' pointer is of int16
    BF16: tl.constexpr,  # the other gradients' pointers are of int16
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    columns = tl.arange(0, D_PADDED)[None, :]
    alive = row < batch
    mask = alive[:, None] & (columns < D)  # [ROWS, D_PADDED]
    fused_there = tl.load(is_fused + row * is_fused_stride, mask=alive, other=0) != 0
    new_there = tl.load(is_new + row * is_new_stride, mask=alive, other=0) != 0
    row = row[:, None]

    pre = tl.load(logits + row * logits_stride + columns, mask=mask, other=0.0)
    z, rest = gate_of(pre.to(tl.float32), fused_there, new_there)  # type: ignore[misc]
    added = tl.load(new + row * new_stride + columns, mask=mask, other=0.0).to(tl.float32)
    slope = tl.zeros([ROWS, D_PADDED], tl.float32)  # of the loss by z
    to_new = tl.zeros([ROWS, D_PADDED], tl.float32)
    if HAS_TOTAL:
        old = tl.load(fused + row * fused_stride + columns, mask=mask, other=0.0).to(tl.float32)
        g = tl.load(grad_total + row * D + columns, mask=mask, other=0.0).to(tl.float32)
        slope += g * (old - added)
        to_new += g
        store_rounded(d_fused + row * D + columns, z * g, mask, BF16)
    if HAS_PARTS:
        for i in tl.static_range(PARTS):
            at = row * ((PARTS + 1) * D) + i * D + columns
            p = tl.load(grad_parts + at, mask=mask, other=0.0).to(tl.float32)
            part = parts + row * parts_stride + i * part_step + columns
            slope += p * tl.load(part, mask=mask, other=0.0).to(tl.float32)
            store_rounded(d_parts + row * (PARTS * D) + i * D + columns, z * p, mask, BF16)
        at = row * ((PARTS + 1) * D) + PARTS * D + columns
        p = tl.load(grad_parts + at, mask=mask, other=0.0).to(tl.float32)
        slope -= p * added
        to_new += p
    store_rounded(d_new + row * D + columns, rest * to_new, mask, BF16)
    # Without a choice one of the factors is zero.
    store_rounded(d_logits + row * D + columns, slope * z * rest, mask, LOGITS_BF16)
