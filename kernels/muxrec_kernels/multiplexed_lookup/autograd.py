"""Pooled lookups on Triton as autograd functions: sparse gradient of the table.

The gradient of a row is the weighted sum of the output gradients of all lookups that read it. With
lookups ordered by row that is a pooled lookup of its own: rows are bags, output gradients the
table, so the forward kernel computes it too, and splits a row that is read very often.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from muxrec_kernels.multiplexed_lookup import triton_kernel
from muxrec_kernels.multiplexed_lookup.launch import Slots, launch_pooled
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS

__all__ = ["launch_backward", "launch_forward", "multiplexed_lookup"]

BLOCK = 1024
"""Ids that a program hashes."""


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
        return _sparse(table, rows, values), None, None, None, None, None, None, None


class _PooledLookup(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        table: Tensor,
        rows: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        pooling: str,
    ) -> Tensor:
        ctx.save_for_backward(table, rows, offsets, weights)
        ctx.pooling = pooling
        return launch_pooled(
            triton_kernel,
            table.detach(),
            rows,
            offsets,
            batch_size=offsets.numel() - 1,
            weights=weights,
            pooling=pooling,
        )

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        table, rows, offsets, weights = ctx.saved_tensors
        lengths = offsets.diff()
        bags = torch.repeat_interleave(lengths, output_size=rows.numel())
        used, values = sum_by_row(
            triton_kernel,
            grad_out.contiguous().float(),
            rows,
            bags,
            _scales(lengths[bags] if ctx.pooling != "sum" else bags, weights, ctx.pooling),
        )
        return _sparse(table, used, values), None, None, None, None


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
    piece: int | None = None,
) -> Tensor:
    """Run the forward kernels of the module ``kernels``; float32 ``[B, S * d]``."""
    return launch_pooled(
        kernels,
        table,
        ids,
        offsets,
        slots=Slots(slot_features, slot_seeds),
        batch_size=batch_size,
        weights=weights,
        pooling=pooling,
        piece=piece,
    )


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

    A stable sort by row and sums in the order of the lookups give the same bits on every run.
    """
    lookups = _expand(ids, offsets, slot_features, batch_size)
    count, slots = lookups.positions.numel(), slot_features.numel()
    read = torch.empty(count, dtype=torch.int64, device=ids.device)
    kernels.rows_kernel[(max(1, triton.cdiv(count, BLOCK)),)](
        ids, lookups.positions, slot_seeds[lookups.slots], read, count, rows, BLOCK=BLOCK
    )
    used = None if weights is None else weights[lookups.positions]
    scales = _scales(lookups.lengths, used, pooling)
    sources = lookups.items * slots + lookups.slots
    del lookups
    return sum_by_row(kernels, grad_out.view(-1, width), read, sources, scales)


def sum_by_row(
    kernels: ModuleType,
    gradients: Tensor,
    read: Tensor,
    sources: Tensor,
    scales: Tensor | None,
    *,
    piece: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sums of the vectors that each row is owed, in the order of the lookups.

    The number of distinct rows decides the result's shape, so this waits for the device.

    Args:
        kernels: The operation's ``triton_kernel`` module.
        gradients: Vectors, contiguous float32 ``[V, d]``.
        read: Row of each lookup, int64 ``[M]``.
        sources: Vector of each lookup, int64 ``[M]`` in ``[0, V)``.
        scales: Factor of each lookup, float32 ``[M]``; None for 1.
        piece: Lookups of a piece of a row that is read often; None for what suits the tile.

    Returns:
        Distinct rows int64 ``[U]``, rising, and their sums float32 ``[U, d]``.
    """
    ordered, order = torch.sort(read, stable=True)
    used, counts = torch.unique_consecutive(ordered, return_counts=True)
    if not used.numel():
        return used, gradients.new_empty(0, gradients.shape[1])
    values = launch_pooled(
        kernels,
        gradients,
        sources[order],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        batch_size=used.numel(),
        weights=None if scales is None else scales[order],
        piece=piece,
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


def _scales(lengths: Tensor, weights: Tensor | None, pooling: str) -> Tensor | None:
    """Factor of each lookup from its bag's length and its weight, float32 ``[M]``; None for 1."""
    if pooling == "sum":
        return weights
    scales = lengths.float().pow(-POOLING_EXPONENTS[pooling])
    return scales if weights is None else scales * weights


def _sparse(table: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(
        rows[None],
        values.to(table.dtype),
        table.shape,
        is_coalesced=True,
        check_invariants=False,
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
    """See :func:`muxrec_kernels.multiplexed_lookup.multiplexed_lookup`."""
    return _MultiplexedLookup.apply(  # type: ignore[return-value]
        _checked(table),
        ids.contiguous(),
        offsets.contiguous(),
        slot_features.contiguous(),
        slot_seeds.contiguous(),
        batch_size,
        _plain(weights),
        pooling,
    )


def pooled_lookup(
    table: Tensor, rows: Tensor, offsets: Tensor, *, weights: Tensor | None, pooling: str
) -> Tensor:
    """See :func:`muxrec_kernels.multiplexed_lookup.pooled_lookup`."""
    return _PooledLookup.apply(  # type: ignore[return-value]
        _checked(table), rows.contiguous(), offsets.contiguous(), _plain(weights), pooling
    )


def _checked(table: Tensor) -> Tensor:
    if table.dtype == torch.float64:
        raise ValueError("the kernels sum in float32: a float64 table needs backend='reference'")
    return table


def _plain(weights: Tensor | None) -> Tensor | None:
    """Weights as the kernels read them: contiguous, float32."""
    return None if weights is None else weights.detach().float().contiguous()
