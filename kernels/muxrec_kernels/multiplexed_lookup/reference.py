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


def lookup_scales(offsets: Tensor, exponent: float | Tensor, count: int) -> Tensor:
    """Factor of every lookup that turns a sum into the wanted pooling, float32 ``[count]``.

    Args:
        offsets: Bag starts, int64 ``[bags + 1]``.
        exponent: One of ``POOLING_EXPONENTS``' values, or one per bag, float32 ``[bags]``.
        count: ``offsets[-1]``, known to the caller; saves a device synchronisation.
    """
    lengths = offsets.diff()
    scales = lengths.clamp(min=1).float().pow(-exponent)
    return torch.repeat_interleave(scales, lengths, output_size=count)


def pool_rows(table: Tensor, rows: Tensor, offsets: Tensor, scales: Tensor | None) -> Tensor:
    """Weighted sum of each bag's rows, ``[bags, d]``, zeros for an empty bag.

    The gradient of ``table`` is sparse: no tensor of the table's size is made. Tables of 16 bits
    are summed in float32; only the rows in use are converted.

    Args:
        table: Rows, float16, bfloat16, float32 or float64 ``[R, d]``.
        rows: Rows to read, int64 ``[M]``.
        offsets: Bag starts, int64 ``[bags + 1]``.
        scales: Factor of every lookup, float32 ``[M]``; None for 1.
    """
    if table.dtype not in (torch.float32, torch.float64):
        used, rows = rows.unique(return_inverse=True)
        table, sparse = F.embedding(used, table, sparse=True).float(), False
    else:
        sparse = True
    weights = None if scales is None else scales.to(table.dtype)
    return F.embedding_bag(
        rows,
        table,
        offsets,
        mode="sum",
        sparse=sparse,
        per_sample_weights=weights,
        include_last_offset=True,
    )


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
    scales = None
    if pooling != "sum":
        exponent = POOLING_EXPONENTS[pooling]
        scales = lookup_scales(found.offsets, exponent, found.rows.numel())
    if weights is not None:
        used = weights[found.positions]
        scales = used if scales is None else scales * used
    pooled = pool_rows(table, found.rows, found.offsets, scales)
    shape = (slot_features.numel(), batch_size, table.shape[1])
    return pooled.view(shape).transpose(0, 1).reshape(batch_size, -1)
