"""Multiplexed lookup, the maths: hash every id for every slot, gather rows, pool each bag.

A *slot* is one probe of one feature. Bags are feature-major: bag ``f * B + b`` holds the ids of
feature ``f`` of item ``b``. All slots read one table.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec_kernels.xxhash64 import finish_hashes, mix_ids, reduce_to_rows

POOLING_EXPONENTS = {"sum": 0.0, "sqrt": 0.5, "mean": 1.0}
"""The pooled rows of a bag of n ids are divided by ``n ** exponent``."""

EXPONENT_CODES = {"sum": 0, "mean": 1, "sqrt": 2}
"""The kernels' compile-time spelling of a pooling."""


class Lookups(NamedTuple):
    """Every row that every slot reads, slot-major.

    Attributes:
        rows: Rows, int64 ``[M]``.
        offsets: Bag starts in ``rows``, int64 ``[S * B + 1]``.
        positions: The id behind each lookup, int64 ``[M]`` into the ids.
    """

    rows: Tensor
    offsets: Tensor
    positions: Tensor


def slot_lookups(
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    *,
    rows: int,
    batch_size: int,
) -> Lookups:
    """Hash the ids of every slot's feature to rows.

    Args:
        ids: Raw ids, int64 ``[N]``.
        offsets: Feature-major bag starts, int64 ``[F * B + 1]``.
        slot_features: Feature of each slot, int64 ``[S]`` in ``[0, F)``.
        slot_seeds: Hash seed of each slot, int64 ``[S]``.
        rows: Rows of the table, in ``[1, 2**31)``.
        batch_size: B.
    """
    starts = offsets[slot_features * batch_size]
    sizes = offsets[(slot_features + 1) * batch_size] - starts
    slots = torch.repeat_interleave(sizes)
    shifts = starts - (sizes.cumsum(0) - sizes)
    positions = torch.arange(slots.numel(), device=ids.device) + shifts[slots]
    hashes = finish_hashes(mix_ids(ids)[positions], slot_seeds[slots])
    ends = offsets[1:].view(-1, batch_size)[slot_features] - shifts[:, None]
    bag_starts = torch.cat([offsets.new_zeros(1), ends.flatten()])
    return Lookups(reduce_to_rows(hashes, rows), bag_starts, positions)


def pool_rows(
    table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Weighted sum of each bag's rows, ``[bags, d]``, zeros for an empty bag.

    The gradient of ``table`` is sparse: no tensor of the table's size is made. Tables of 16 bits
    are summed in float32; only the rows in use are converted.

    Args:
        table: Rows, float16, bfloat16, float32 or float64 ``[R, d]``.
        rows: Rows to read, int64 ``[M]``.
        offsets: Bag starts, int64 ``[bags + 1]``.
        weights: Factor of every row read, float32 ``[M]``; None for 1.
    """
    sparse = table.dtype in (torch.float32, torch.float64)
    if not sparse:
        used, rows = rows.unique(return_inverse=True)
        table = F.embedding(used, table, sparse=True).float()
    return F.embedding_bag(
        rows,
        table,
        offsets,
        mode="sum",
        sparse=sparse,
        per_sample_weights=None if weights is None else weights.to(table.dtype),
        include_last_offset=True,
    )


def bag_scales(offsets: Tensor, exponent: float | Tensor) -> Tensor:
    """Factor that turns each bag's sum into the wanted pooling, float32 ``[bags]``; 1 if empty.

    Args:
        offsets: Bag starts, int64 ``[bags + 1]``.
        exponent: One of ``POOLING_EXPONENTS``' values, or one per bag, float32 ``[bags]``.
    """
    return offsets.diff().clamp(min=1).float().pow(-exponent)


def pooled_lookup(
    table: Tensor, rows: Tensor, offsets: Tensor, *, weights: Tensor | None, pooling: str
) -> Tensor:
    """See :func:`muxrec_kernels.multiplexed_lookup.pooled_lookup`; runs on any device."""
    pooled = pool_rows(table, rows, offsets, weights)
    if pooling == "sum":
        return pooled
    scales = bag_scales(offsets, POOLING_EXPONENTS[pooling])
    return pooled * scales[:, None].to(pooled.dtype)


def multiplexed_lookup(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    *,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
) -> Tensor:
    """See :func:`muxrec_kernels.multiplexed_lookup.multiplexed_lookup`; runs on any device."""
    found = slot_lookups(
        ids, offsets, slot_features, slot_seeds, rows=table.shape[0], batch_size=batch_size
    )
    used = None if weights is None else weights[found.positions]
    pooled = pooled_lookup(table, found.rows, found.offsets, weights=used, pooling=pooling)
    shape = (slot_features.numel(), batch_size, table.shape[1])
    return pooled.view(shape).transpose(0, 1).reshape(batch_size, -1)
