"""Row update: the gradient of a lookup and the optimiser in one, with no gradient in between."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.multiplexed_lookup import POOLING_EXPONENTS
from muxrec_kernels.row_update import reference
from muxrec_kernels.row_update.reference import slots_of_features
from muxrec_kernels.row_update.rule import KINDS, RowState, Rule, new_state, state_shapes

__all__ = [
    "KINDS",
    "RowState",
    "Rule",
    "new_state",
    "slots_of_features",
    "update_rows",
    "update_rows_of_lookup",
]

MOST_LOOKUPS = 2**31 - 1
TABLE_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def update_rows_of_lookup(
    table: Tensor,
    state: RowState,
    grad_out: Tensor,
    ids: Tensor,
    offsets: Tensor,
    feature_slots: Tensor,
    slot_seeds: Tensor,
    *,
    batch_size: int,
    rule: Rule,
    weights: Tensor | None = None,
    pooling: str = "sum",
    backend: Backend | str | None = None,
) -> None:
    """Update in place the rows that a multiplexed lookup read, given its output's gradient.

    The gradients of a row are summed in float32 over all its lookups before the rule sees them.
    No tensor of the table's size is made, and none of the lookups' gradients. Triton gives the
    same bits on every run, with no atomic operation, and never waits for the device.

    Args:
        table: Rows, float16, bfloat16 or float32 ``[R, d]`` with R in ``[1, 2**31)``, contiguous;
            without gradient bookkeeping (detached). The reference takes float64 too.
        state: The rule's state of the table; see :func:`new_state`.
        grad_out: Gradient of the lookup's output, float32 ``[B, S * d]``.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Feature-major bag starts, int64 ``[F * B + 1]``, rising from 0 to N.
        feature_slots: Slots of each feature, int64 ``[F, P]``; see :func:`slots_of_features`.
        slot_seeds: Hash seed of each slot, int64 ``[S]``.
        batch_size: B, at least 1.
        rule: The optimiser.
        weights: Factor of each id, float32 ``[N]``; None for 1.
        pooling: ``sum``, ``mean`` or ``sqrt``, as in the lookup.
        backend: Implementation to force; None lets the device decide.

    Raises:
        ValueError: A shape, dtype or pooling is not as described.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table, state, rule)
    slots, width = slot_seeds.numel(), table.shape[1]
    _check_integers((1,), ids=ids, offsets=offsets, slot_seeds=slot_seeds, types=(torch.int64,))
    _check_integers((2,), feature_slots=feature_slots, types=(torch.int64,))
    _check_gradient(grad_out, (batch_size, slots * width))
    if batch_size < 1 or offsets.numel() != feature_slots.shape[0] * batch_size + 1:
        raise ValueError(
            f"offsets must have F * batch_size + 1 entries, got {offsets.numel()} for "
            f"{feature_slots.shape[0]} features and batch_size {batch_size}"
        )
    _check_factors("weights", weights, ids)
    if pooling not in POOLING_EXPONENTS:
        raise ValueError(f"pooling must be one of {', '.join(POOLING_EXPONENTS)}, got {pooling!r}")
    lookups = ids.numel() * feature_slots.shape[1]
    _check_count(lookups, batch_size * slots)
    picked = choose_backend(table.device, forced=backend)
    if lookups == 0:
        return
    if picked is Backend.REFERENCE:
        reference.update_rows_of_lookup(
            table,
            state,
            grad_out,
            ids,
            offsets,
            feature_slots,
            slot_seeds,
            batch_size=batch_size,
            weights=weights,
            pooling=pooling,
            rule=rule,
        )
        return
    from muxrec_kernels.row_update import launch, triton_kernel

    found = launch.hash_lookups(
        triton_kernel,
        ids.contiguous(),
        offsets.contiguous(),
        feature_slots.contiguous(),
        slot_seeds.contiguous(),
        rows=table.shape[0],
        batch_size=batch_size,
        weights=None if weights is None else weights.float().contiguous(),
        pooling=pooling,
    )
    grad = grad_out.contiguous().view(-1, width)
    launch.launch_update(triton_kernel, table, state, found, grad, rule=rule)


def update_rows(
    table: Tensor,
    state: RowState,
    rows: Tensor,
    sources: Tensor,
    grad: Tensor,
    *,
    rule: Rule,
    scales: Tensor | None = None,
    backend: Backend | str | None = None,
) -> None:
    """Update in place the rows of lookups whose rows are known.

    Row ``rows[m]`` gets ``scales[m] * grad[sources[m]]``; otherwise as
    :func:`update_rows_of_lookup`.

    Args:
        table: Rows, float16, bfloat16 or float32 ``[R, d]``, contiguous, detached.
        state: The rule's state of the table.
        rows: Row of each lookup in ``[0, R)``, int32 or int64 ``[M]``, any order, repeated at will.
        sources: Gradient vector of each lookup in ``[0, V)``, int32 or int64 ``[M]``.
        grad: Gradient vectors, float32 ``[V, d]``.
        rule: The optimiser.
        scales: Factor of each lookup, float32 ``[M]``; None for 1.
        backend: Implementation to force; None lets the device decide.

    Raises:
        ValueError: A shape or dtype is not as described.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table, state, rule)
    _check_integers((1,), rows=rows, sources=sources, types=(torch.int32, torch.int64))
    _check_gradient(grad, (grad.shape[0], table.shape[1]))
    if rows.shape != sources.shape:
        raise ValueError(
            f"rows and sources must be as long, got {rows.numel()} and {sources.numel()}"
        )
    _check_factors("scales", scales, rows)
    _check_count(rows.numel(), grad.shape[0])
    picked = choose_backend(table.device, forced=backend)
    if rows.numel() == 0:
        return
    if picked is Backend.REFERENCE:
        reference.update_rows(table, state, rows, sources, grad, scales=scales, rule=rule)
        return
    from muxrec_kernels.row_update import launch, triton_kernel

    scales = None if scales is None else scales.float().contiguous()
    found = launch.Lookups(rows.int(), sources.int().contiguous(), scales)
    launch.launch_update(triton_kernel, table, state, found, grad.contiguous(), rule=rule)


def _check_table(table: Tensor, state: RowState, rule: Rule) -> None:
    if table.ndim != 2 or not 1 <= table.shape[0] < 2**31 or not table.is_contiguous():
        raise ValueError(
            f"table must be contiguous [R, d], 1 <= R < 2**31, got {tuple(table.shape)}"
        )
    if table.dtype not in TABLE_TYPES or table.requires_grad:
        raise ValueError(
            f"table must hold floating-point rows without gradient, got {table.dtype}, "
            f"requires_grad={table.requires_grad}"
        )
    for name, found, shape in zip(
        state._fields, state, state_shapes(rule.kind, table), strict=True
    ):
        got = None if found is None else tuple(found.shape)
        if got != (None if shape is None else tuple(shape)):
            raise ValueError(f"state.{name} of {rule.kind} must be {shape}, got {got}")
        if found is not None and not found.is_contiguous():
            raise ValueError(f"state.{name} must be contiguous")


def _check_integers(shape: tuple[int], *, types: tuple[torch.dtype, ...], **found: Tensor) -> None:
    for name, value in found.items():
        if value.ndim != shape[0] or value.dtype not in types:
            wanted = " or ".join(str(each) for each in types)
            raise ValueError(
                f"{name} must be {wanted} of {shape[0]} dimensions, got {value.dtype} "
                f"{tuple(value.shape)}"
            )


def _check_gradient(found: Tensor, shape: tuple[int, ...]) -> None:
    if found.shape != shape or found.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the gradient must be float32 {shape}, got {found.dtype} {tuple(found.shape)}"
        )


def _check_factors(name: str, factors: Tensor | None, like: Tensor) -> None:
    if factors is not None and (factors.shape != like.shape or not factors.is_floating_point()):
        raise ValueError(
            f"{name} must be float32 {tuple(like.shape)}, got {factors.dtype} "
            f"{tuple(factors.shape)}"
        )


def _check_count(lookups: int, vectors: int) -> None:
    if max(lookups, vectors) > MOST_LOOKUPS:
        raise ValueError(
            f"lookups and gradient vectors must be below 2**31, got {lookups} and {vectors}: "
            "split the batch"
        )
