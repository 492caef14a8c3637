"""Multiplexed lookup on Triton as an autograd function: launches, tiles, sparse gradient."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from muxrec_kernels.multiplexed_lookup import triton_kernel
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS
from muxrec_kernels.tiles import choose_tile, next_power_of_2, segment_lanes

EXPONENT_CODES = {"sum": 0, "mean": 1, "sqrt": 2}
"""The kernel's compile-time spelling of a pooling."""


class _MultiplexedLookup(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        table: Tensor,
        ids: Tensor,
        offsets: Tensor,
        slot_features: Tensor,
        slot_seeds: Tensor,
        batch_size: int,
        weights: Tensor | None,
        pooling: str,
    ) -> Tensor:
        ctx.save_for_backward(table, ids, offsets, slot_features, slot_seeds, weights)
        ctx.batch_size, ctx.pooling = batch_size, pooling
        return launch_forward(
            triton_kernel,
            table.detach(),
            ids,
            offsets,
            slot_features,
            slot_seeds,
            batch_size=batch_size,
            weights=weights,
            pooling=pooling,
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        table, ids, offsets, slot_features, slot_seeds, weights = ctx.saved_tensors
        rows, values = launch_backward(
            triton_kernel,
            grad_out.contiguous().float(),
            ids,
            offsets,
            slot_features,
            slot_seeds,
            rows=table.shape[0],
            width=table.shape[1],
            batch_size=ctx.batch_size,
            weights=weights,
            pooling=ctx.pooling,
        )
        gradient = torch.sparse_coo_tensor(
            rows[None],
            values.to(table.dtype),
            table.shape,
            is_coalesced=True,
            check_invariants=False,
        )
        return gradient, None, None, None, None, None, None, None


def launch_forward(
    kernels: ModuleType,
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
    """Run the forward kernel of the module ``kernels``; float32 ``[B, S * d]``.

    The module is an argument so that a test can pass one with a seeded defect.
    """
    slots, width = slot_features.numel(), table.shape[1]
    out = torch.empty(batch_size, slots * width, device=table.device)
    tile = choose_tile(width, ids.numel() / max(1, offsets.numel() - 1))
    kernels.forward_kernel[(triton.cdiv(batch_size, tile.bags), slots)](
        table,
        ids,
        offsets,
        slot_features,
        slot_seeds,
        ids if weights is None else weights,
        out,
        table.shape[0],
        batch_size,
        slots,
        D=width,
        D_PADDED=next_power_of_2(width),
        BAGS=tile.bags,
        LANES=tile.lanes,
        WEIGHTED=weights is not None,
        EXPONENT=EXPONENT_CODES[pooling],
        num_warps=tile.warps,
    )
    return out


def launch_backward(
    kernels: ModuleType,
    grad_out: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    *,
    rows: int,
    width: int,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
) -> tuple[Tensor, Tensor]:
    """Gradient of the rows in use: distinct rows int64 ``[U]`` rising, values float32 ``[U, d]``.

    A stable sort by row and one program per row add every row's terms in a fixed order, so the
    result is the same bits on every run.
    """
    lookups = _expand(ids, offsets, slot_features, batch_size)
    count, slots = lookups.positions.numel(), slot_features.numel()
    read = torch.empty(count, dtype=torch.int64, device=ids.device)
    block = 1024
    kernels.rows_kernel[(max(1, triton.cdiv(count, block)),)](
        ids, lookups.positions, slot_seeds[lookups.slots], read, count, rows, BLOCK=block
    )
    ordered, order = torch.sort(read, stable=True)
    used, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    values = torch.empty(used.numel(), width, device=ids.device)
    scales = _scales(lookups, weights, pooling)
    if used.numel():
        sources = (lookups.items * slots + lookups.slots)[order]
        kernels.segment_kernel[(used.numel(),)](
            grad_out,
            sources,
            sources if scales is None else scales[order],
            starts,
            values,
            D=width,
            D_PADDED=next_power_of_2(width),
            LANES=segment_lanes(width),
            SCALED=scales is not None,
            num_warps=1,
        )
    return used, values


class _Lookups(NamedTuple):
    """Every lookup, slot-major: its id, slot, item and its bag's length; int64 ``[M]`` each."""

    positions: Tensor
    slots: Tensor
    items: Tensor
    lengths: Tensor


def _expand(ids: Tensor, offsets: Tensor, slot_features: Tensor, batch_size: int) -> _Lookups:
    lengths = offsets.diff().view(-1, batch_size)[slot_features].flatten()
    starts = offsets[:-1].view(-1, batch_size)[slot_features].flatten()
    bags = torch.repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    positions = torch.arange(bags.numel(), device=ids.device) + (starts - before)[bags]
    slots = torch.div(bags, batch_size, rounding_mode="trunc")
    return _Lookups(positions, slots, bags - slots * batch_size, lengths[bags])


def _scales(lookups: _Lookups, weights: Tensor | None, pooling: str) -> Tensor | None:
    scales = None
    if pooling != "sum":
        scales = lookups.lengths.float().pow(-POOLING_EXPONENTS[pooling])
    if weights is not None:
        used = weights[lookups.positions]
        scales = used if scales is None else scales * used
    return scales


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
    """See :func:`muxrec_kernels.multiplexed_lookup.multiplexed_lookup`."""
    return _MultiplexedLookup.apply(  # type: ignore[return-value]
        table, ids, offsets, slot_features, slot_seeds, batch_size, weights, pooling
    )
