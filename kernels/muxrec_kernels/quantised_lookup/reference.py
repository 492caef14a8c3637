"""Quantised lookup, the maths: unpack the rows in use, then pool them as the lookup of floats does.

Bags are slot-major after hashing: bag ``s * B + b`` holds the rows of slot s of item b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.multiplexed_lookup.reference import (
    POOLING_EXPONENTS,
    bag_scales,
    pool_rows,
    slot_lookups,
)
from muxrec_kernels.quantised_lookup.packing import unpack_rows


def quantised_lookup(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    *,
    width: int,
    bits: int,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
    unit: float,
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`muxrec_kernels.quantised_lookup.quantised_lookup`; runs on any device."""
    found = slot_lookups(
        ids, offsets, slot_features, slot_seeds, rows=table.shape[0], batch_size=batch_size
    )
    return pool_quantised_rows(
        table,
        found.rows,
        found.offsets,
        width=width,
        bits=bits,
        batch_size=batch_size,
        weights=None if weights is None else weights[found.positions],
        pooling=pooling,
        unit=unit,
        dtype=dtype,
    )


def pool_quantised_rows(
    table: Tensor,
    rows: Tensor,
    offsets: Tensor,
    *,
    width: int,
    bits: int,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
    unit: float,
    dtype: torch.dtype,
) -> Tensor:
    """See :func:`muxrec_kernels.quantised_lookup.pool_quantised_rows`; runs on any device."""
    within = slice(int(offsets[0]), int(offsets[-1]))
    used, places = rows[within].unique(return_inverse=True)
    sums_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    dense = unpack_rows(table[used], width, bits, dtype=sums_dtype)
    pooled = pool_rows(
        dense, places, offsets - offsets[0], None if weights is None else weights[within]
    )
    pooled = pooled * (bag_scales(offsets, POOLING_EXPONENTS[pooling]) * unit)[:, None]
    return pooled.view(-1, batch_size, width).transpose(0, 1).reshape(batch_size, -1).to(dtype)
