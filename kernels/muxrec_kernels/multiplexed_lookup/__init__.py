"""Multiplexed lookup: ids of many features to pooled rows of one table, hash included or not."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.multiplexed_lookup import reference
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS, pool_rows, slot_lookups

__all__ = [
    "POOLING_EXPONENTS",
    "multiplexed_lookup",
    "pool_rows",
    "pooled_lookup",
    "slot_lookups",
]


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
    ``table`` is a sparse tensor with one entry per row in use. Bags may hold any number of ids:
    long ones are summed in parts, in a fixed order, so results are the same bits on every run.

    Ids, offsets, slots and weights may be strided: the kernel path copies what is not contiguous.

    Args:
        table: Rows, float16, bfloat16 or float32 ``[R, d]`` with R in ``[1, 2**31)``, contiguous.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Feature-major bag starts, int64 ``[F * B + 1]``, rising from 0 to N.
        slot_features: Feature of each slot, int64 ``[S]`` in ``[0, F)``.
        slot_seeds: Hash seed of each slot, int64 ``[S]``.
        batch_size: B, at least 1.
        weights: Factor of each id, floating-point ``[N]``, without gradient, taken as float32;
            None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[B, S * d]``, slot after slot; zeros where a bag is empty. The reference on a
        float64 table returns float64.

    Raises:
        ValueError: A shape, dtype or pooling is not as described, or a kernel got float64 rows.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table)
    for name, value in {
        "ids": ids,
        "offsets": offsets,
        "slot_features": slot_features,
        "slot_seeds": slot_seeds,
    }.items():
        _check_numbers(name, value)
    _check_bags(offsets, batch_size)
    _check_slots(slot_features, slot_seeds)
    _check_pooling(ids, weights, pooling)
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


def pooled_lookup(
    table: Tensor,
    rows: Tensor,
    offsets: Tensor,
    *,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled rows of every bag, the rows being given by number.

    The same kernel as :func:`multiplexed_lookup` without its hash, for tables whose rows come from
    a map. Sums run in float32; the gradient of ``table`` is a sparse tensor.

    Args:
        table: Rows, float16, bfloat16 or float32 ``[R, d]`` with R in ``[1, 2**31)``, contiguous.
        rows: Rows to read, int64 ``[M]`` in ``[0, R)``; a GPU trusts them. May be strided.
        offsets: Bag starts, int64 ``[bags + 1]``, rising from 0 to M. May be strided.
        weights: Factor of each row read, floating-point ``[M]``, without gradient, taken as
            float32; None for 1. May be strided.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        backend: Implementation to force; None lets the device decide.

    Returns:
        float32 ``[bags, d]``; zeros where a bag is empty. The reference on a float64 table returns
        float64.

    Raises:
        ValueError: A shape, dtype or pooling is not as described, or a kernel got float64 rows.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table)
    _check_numbers("rows", rows)
    _check_numbers("offsets", offsets)
    if offsets.numel() == 0:
        raise ValueError("offsets must have an entry per bag and one more, got none")
    _check_pooling(rows, weights, pooling)
    picked = choose_backend(table.device, forced=backend)
    if picked is Backend.REFERENCE:
        run = reference.pooled_lookup
    else:
        from muxrec_kernels.multiplexed_lookup.autograd import pooled_lookup as run
    return run(table, rows, offsets, weights=weights, pooling=pooling)


# What no backend could answer is refused; values are trusted, since reading them would wait.


def _check_table(table: Tensor) -> None:
    if table.ndim != 2 or not 1 <= table.shape[0] < 2**31 or not table.is_contiguous():
        raise ValueError(
            f"table must be contiguous [R, d], 1 <= R < 2**31, got {tuple(table.shape)}"
        )
    if not table.dtype.is_floating_point:
        raise ValueError(f"table must hold floating-point rows, got {table.dtype}")


def _check_numbers(name: str, value: Tensor) -> None:
    if value.ndim != 1 or value.dtype != torch.int64:
        raise ValueError(f"{name} must be int64 [n], got {value.dtype} {tuple(value.shape)}")


def _check_bags(offsets: Tensor, batch_size: int) -> None:
    if batch_size < 1 or offsets.numel() % batch_size != (1 if batch_size > 1 else 0):
        raise ValueError(
            f"offsets must have F * batch_size + 1 entries, got {offsets.numel()} "
            f"for batch_size {batch_size}"
        )


def _check_slots(features: Tensor, seeds: Tensor) -> None:
    if features.numel() != seeds.numel() or seeds.numel() == 0:
        raise ValueError(
            f"slot_features and slot_seeds must be as long and not empty, got "
            f"{features.numel()} and {seeds.numel()}"
        )


def _check_pooling(ids: Tensor, weights: Tensor | None, pooling: str) -> None:
    if weights is not None and (weights.shape != ids.shape or weights.requires_grad):
        raise ValueError(
            f"weights must be one factor per id without gradient, got {tuple(weights.shape)} "
            f"for {ids.numel()} ids, requires_grad={weights.requires_grad}"
        )
    if pooling not in POOLING_EXPONENTS:
        raise ValueError(f"pooling must be one of {', '.join(POOLING_EXPONENTS)}, got {pooling!r}")
