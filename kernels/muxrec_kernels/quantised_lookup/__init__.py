"""Quantised lookup: ids or rows to pooled rows of a table of int8, int4 or int2 codes.

For serving: nothing here has a gradient. :mod:`muxrec_kernels.quantised_lookup.packing` says how a
row is laid, and which widths waste no memory traffic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.multiplexed_lookup.reference import POOLING_EXPONENTS
from muxrec_kernels.quantised_lookup import reference
from muxrec_kernels.quantised_lookup.packing import (
    BITS,
    pack_codes,
    pack_rows,
    packed_row_bytes,
    row_sectors,
    sector_exact_width,
    unpack_codes,
    unpack_rows,
)

__all__ = [
    "BITS",
    "pack_codes",
    "pack_rows",
    "packed_row_bytes",
    "pool_quantised_rows",
    "quantised_lookup",
    "row_sectors",
    "sector_exact_width",
    "unpack_codes",
    "unpack_rows",
]

DTYPES = {
    Backend.TRITON: (torch.float32, torch.float16),
    Backend.REFERENCE: (torch.float32, torch.float16, torch.float64),
}


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
    weights: Tensor | None = None,
    pooling: str = "sum",
    unit: float = 1.0,
    dtype: torch.dtype = torch.float32,
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled rows of every slot of every item, hashed, read and de-quantised in one pass.

    Slot s hashes each id of its feature with ``slot_seeds[s]`` to a row of ``table``; the rows of a
    bag are pooled; the slots of an item are concatenated. Sums run in float32, in the same order
    on every run; a bag is summed by one program, however long it is.

    Args:
        table: Rows as :func:`pack_rows` makes them, uint8 ``[R, packed_row_bytes(width, bits)]``
            with R in ``[1, 2**31)``, contiguous.
        ids: Raw ids, int64 ``[N]``, any value.
        offsets: Feature-major bag starts, int64 ``[F * B + 1]``, rising within ``[0, N]``.
        slot_features: Feature of each slot, int64 ``[S]`` in ``[0, F)``.
        slot_seeds: Hash seed of each slot, int64 ``[S]``.
        width: Numbers of a row, d, at least 1.
        bits: Bits of a code: 8, 4 or 2.
        batch_size: B, at least 1.
        weights: Factor of each id, float32 ``[N]``; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        unit: Factor of all numbers of the table.
        dtype: float32 or float16 of the result; the reference also knows float64.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``dtype`` ``[B, S * d]``, slot after slot; zeros where a bag is empty.

    Raises:
        ValueError: A shape, dtype, width or pooling is not as described, or a weight wants a
            gradient.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table, width, bits, hashed=True)
    _check_bags("ids", ids, offsets, batch_size, weights, pooling)
    for name, value in {"slot_features": slot_features, "slot_seeds": slot_seeds}.items():
        _check_integers(name, value)
    if slot_features.numel() != slot_seeds.numel() or slot_seeds.numel() == 0:
        raise ValueError(
            f"slot_features and slot_seeds must be as long and not empty, got "
            f"{slot_features.numel()} and {slot_seeds.numel()}"
        )
    if _choose(table, dtype, backend) is Backend.REFERENCE:
        run = reference.quantised_lookup
    else:
        from muxrec_kernels.quantised_lookup.launch import quantised_lookup as run
    return run(
        table,
        ids,
        offsets,
        slot_features,
        slot_seeds,
        width=width,
        bits=bits,
        batch_size=batch_size,
        weights=weights,
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
    weights: Tensor | None = None,
    pooling: str = "sum",
    unit: float = 1.0,
    dtype: torch.dtype = torch.float32,
    backend: Backend | str | None = None,
) -> Tensor:
    """Pooled rows of bags whose row numbers are given; else as :func:`quantised_lookup`.

    Args:
        table: Rows as :func:`pack_rows` makes them, uint8 ``[R, packed_row_bytes(width, bits)]``
            with R of at least 1, contiguous.
        rows: Row numbers, int64 ``[N]`` in ``[0, R)``.
        offsets: Slot-major bag starts, int64 ``[S * B + 1]``, rising within ``[0, N]``; rows before
            the first and from the last on belong to no bag.
        width: Numbers of a row, d, at least 1.
        bits: Bits of a code: 8, 4 or 2.
        batch_size: B, at least 1.
        weights: Factor of each row read, float32 ``[N]``; None for 1.
        pooling: ``sum``, ``mean`` (divided by the bag's length) or ``sqrt`` (by its square root).
        unit: Factor of all numbers of the table.
        dtype: float32 or float16 of the result; the reference also knows float64.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``dtype`` ``[B, S * d]``, slot after slot; zeros where a bag is empty.

    Raises:
        ValueError: A shape, dtype, width or pooling is not as described, or a weight wants a
            gradient.
        BackendError: The forced backend cannot run on the table's device.
    """
    _check_table(table, width, bits, hashed=False)
    _check_bags("rows", rows, offsets, batch_size, weights, pooling)
    if _choose(table, dtype, backend) is Backend.REFERENCE:
        run = reference.pool_quantised_rows
    else:
        from muxrec_kernels.quantised_lookup.launch import pool_quantised_rows as run
    return run(
        table,
        rows,
        offsets,
        width=width,
        bits=bits,
        batch_size=batch_size,
        weights=weights,
        pooling=pooling,
        unit=unit,
        dtype=dtype,
    )


def _choose(table: Tensor, dtype: torch.dtype, backend: Backend | str | None) -> Backend:
    picked = choose_backend(table.device, forced=backend)
    if dtype not in DTYPES[picked]:
        known = ", ".join(str(each).removeprefix("torch.") for each in DTYPES[picked])
        raise ValueError(f"dtype must be one of {known} on backend {picked.value}, got {dtype}")
    return picked


def _check_table(table: Tensor, width: int, bits: int, *, hashed: bool) -> None:
    row_bytes = packed_row_bytes(width, bits)
    if table.dtype != torch.uint8 or table.dim() != 2 or table.shape[1] != row_bytes:
        raise ValueError(
            f"table must be uint8 [R, {row_bytes}] for {width} codes of {bits} bits, got "
            f"{table.dtype} {list(table.shape)}"
        )
    if not table.is_contiguous() or table.storage_offset() % 16:
        raise ValueError("table must be contiguous and begin at a multiple of 16 bytes")
    if not 1 <= table.shape[0] < (2**31 if hashed else 2**63):
        raise ValueError(f"table must have 1 to 2**31 - 1 rows, got {table.shape[0]}")


def _check_bags(
    name: str,
    ids: Tensor,
    offsets: Tensor,
    batch_size: int,
    weights: Tensor | None,
    pooling: str,
) -> None:
    """Refuse what no backend could answer; values are trusted, since reading them would wait."""
    _check_integers(name, ids)
    _check_integers("offsets", offsets)
    if batch_size < 1 or offsets.numel() % batch_size != (1 if batch_size > 1 else 0):
        raise ValueError(
            f"offsets must have F * batch_size + 1 entries, got {offsets.numel()} "
            f"for batch_size {batch_size}"
        )
    if weights is not None and (weights.shape != ids.shape or weights.dtype != torch.float32):
        raise ValueError(
            f"weights must be float32 {list(ids.shape)}, one factor of each of {name}, got "
            f"{weights.dtype} {list(weights.shape)}"
        )
    if weights is not None and weights.requires_grad:
        raise ValueError("quantised rows are for serving: weights must not require a gradient")
    if pooling not in POOLING_EXPONENTS:
        raise ValueError(f"pooling must be one of {', '.join(POOLING_EXPONENTS)}, got {pooling!r}")


def _check_integers(name: str, value: Tensor) -> None:
    if value.ndim != 1 or value.dtype != torch.int64:
        raise ValueError(f"{name} must be int64 [n], got {value.dtype} {tuple(value.shape)}")
