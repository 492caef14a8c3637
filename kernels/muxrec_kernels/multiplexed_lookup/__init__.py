"""Multiplexed lookup: ids of many features to pooled rows of one table, hash included."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.multiplexed_lookup import reference
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS, pool_rows, slot_lookups

__all__ = ["POOLING_EXPONENTS", "multiplexed_lookup", "pool_rows", "slot_lookups"]


def multiplexed_lookup(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    *,
    batch_size: int,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled rows of every slot of every item.

    Slot s hashes each id of its feature with ``slot_seeds[s]`` to a row of ``table``; the rows of a
    bag are pooled; the slots of an item are concatenated. Sums run in float32. The gradient of
    ``table`` is a sparse tensor with one entry per row in use.

    Args:
        table: Rows, float16, bfloat16 or float32 ``[R, d]`` with R in ``[1, 2**31)``, contiguous.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Feature-major bag starts, int64 ``[F * B + 1]``, rising from 0 to N.
        slot_features: Feature of each slot, int64 ``[S]`` in ``[0, F)``.
        slot_seeds: Hash seed of each slot, int64 ``[S]``.
        batch_size: B, at least 1.
        weights: Factor of each id, float32 ``[N]``, without gradient; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, S * d]``, slot after slot; zeros where a bag is empty. The reference on a
        float64 table returns float64.

    Raises:
        ValueError: A shape, dtype or pooling is not as described.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check(table, ids, offsets, slot_features, slot_seeds, batch_size, weights, pooling)
    picked = choose_backend(table.device, forced=backend)
    if picked is Backend.REFERENCE:
        run = reference.multiplexed_lookup
    else:
        from muxrec_kernels.multiplexed_lookup.autograd import multiplexed_lookup as run
    return run(
        table,
        ids,
        offsets,
        slot_features,
        slot_seeds,
        batch_size=batch_size,
        weights=weights,
        pooling=pooling,
    )


def _check(
    table: Tensor,
    ids: Tensor,
    offsets: Tensor,
    slot_features: Tensor,
    slot_seeds: Tensor,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
) -> None:
    """Refuse what no backend could answer; values are trusted, since reading them would wait."""
    if table.ndim != 2 or not 1 <= table.shape[0] < 2**31 or not table.is_contiguous():
        raise ValueError(
            f"table must be contiguous [R, d], 1 <= R < 2**31, got {tuple(table.shape)}"
        )
    if not table.dtype.is_floating_point:
        raise ValueError(f"table must hold floating-point rows, got {table.dtype}")
    for name, value in {
        "ids": ids,
        "offsets": offsets,
        "slot_features": slot_features,
        "slot_seeds": slot_seeds,
    }.items():
        if value.ndim != 1 or value.dtype != torch.int64:
            raise ValueError(f"{name} must be int64 [n], got {value.dtype} {tuple(value.shape)}")
    if batch_size < 1 or offsets.numel() % batch_size != (1 if batch_size > 1 else 0):
        raise ValueError(
            f"offsets must have F * batch_size + 1 entries, got {offsets.numel()} "
            f"for batch_size {batch_size}"
        )
    if slot_features.numel() != slot_seeds.numel() or slot_seeds.numel() == 0:
        raise ValueError(
            f"slot_features and slot_seeds must be as long and not empty, got "
            f"{slot_features.numel()} and {slot_seeds.numel()}"
        )
    if weights is not None and (weights.shape != ids.shape or weights.requires_grad):
        raise ValueError(
            f"weights must be one factor per id without gradient, got {tuple(weights.shape)} "
            f"for {ids.numel()} ids, requires_grad={weights.requires_grad}"
        )
    if pooling not in POOLING_EXPONENTS:
        raise ValueError(f"pooling must be one of {', '.join(POOLING_EXPONENTS)}, got {pooling!r}")
