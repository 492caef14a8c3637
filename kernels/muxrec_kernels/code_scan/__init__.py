"""Scans of item codes: the best items of every query by exact scores, without a score matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.code_scan import reference
from muxrec_kernels.code_scan.packing import (
    PACKED_BITS,
    pack_codes,
    pack_signs,
    packed_bytes,
    unpack_codes,
)
from muxrec_kernels.dispatch import Backend, choose_backend

__all__ = [
    "PACKED_BITS",
    "pack_codes",
    "pack_signs",
    "packed_bytes",
    "scan_int8",
    "scan_packed",
    "scan_signs",
    "unpack_codes",
]

MOST_RESULTS = 256
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
WORDS = (torch.uint8, torch.int32, torch.int64)


def scan_signs(
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    exclude: Tensor | None = None,
    backend: Backend | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of every query whose sign codes differ from its own in the fewest bits.

    Args:
        queries: Sign codes, uint8, int32 or int64 ``[Q, w]``, 32 to 512 bits each.
        codes: Sign codes of the items, dtype and width of ``queries``, ``[N, w]``, N in
            ``[1, 2**31)``; contiguous.
        k: Results per query, in ``[1, min(N, 256)]``.
        exclude: An item per query that is never a result, int64 ``[Q]``; -1, or None, for none.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``(distances, items)``: int32 and int64 ``[Q, k]``, the nearest first, ties by the lower
        item. Where an exclusion leaves fewer than k items the last item is -1, its distance
        ``2**31 - 1``.

    Raises:
        ValueError: A shape, dtype or k is not as described.
        BackendError: The forced backend cannot run on the codes' device.
    """
    if codes.dtype not in WORDS or queries.dtype != codes.dtype:
        raise ValueError(
            f"queries and codes must be uint8, int32 or int64, both the same, got {queries.dtype} "
            f"and {codes.dtype}"
        )
    _check(queries, codes, k, exclude)
    bits = 8 * codes.shape[1] * codes.dtype.itemsize
    if codes.shape[1] != queries.shape[1] or not 32 <= bits <= 512 or bits % 32:
        raise ValueError(
            f"sign codes must have a multiple of 32 bits, 32 to 512, the same for both, got "
            f"{tuple(queries.shape)} and {tuple(codes.shape)} of {codes.dtype}"
        )
    asked, held = queries.contiguous().view(torch.uint8), codes.view(torch.uint8)
    if choose_backend(codes.device, forced=backend) is Backend.REFERENCE:
        return reference.scan_signs(asked, held, k, exclude=exclude)
    from muxrec_kernels.code_scan.scans import scan_signs as run

    return run(asked, held, k, exclude=exclude)


def scan_int8(
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    scales: Tensor | None = None,
    exclude: Tensor | None = None,
    backend: Backend | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of every query with the largest ``scales[n] * dot(query, codes[n])``.

    Args:
        queries: int8, or finite float16, bfloat16 or float32 ``[Q, D]``.
        codes: int8 ``[N, D]``, N in ``[1, 2**31)``, contiguous.
        k: Results per query, in ``[1, min(N, 256)]``.
        scales: Factor of every item, finite float32 ``[N]``; None for 1.
        exclude: An item per query that is never a result, int64 ``[Q]``; -1, or None, for none.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``(scores, items)``: float32 and int64 ``[Q, k]``, the largest first, ties by the lower
        item. Queries of int8 without scales give exact int32 scores. Where an exclusion leaves
        fewer than k items the last item is -1, its score -inf or ``-2**31``. The reference on
        float64 queries returns float64.

    Raises:
        ValueError: A shape, dtype or k is not as described.
        BackendError: The forced backend cannot run on the codes' device.
    """
    if codes.dtype != torch.int8:
        raise ValueError(f"codes must be int8, got {codes.dtype}")
    if queries.dtype != torch.int8 and not queries.dtype.is_floating_point:
        raise ValueError(f"queries must be int8 or floating-point, got {queries.dtype}")
    _check(queries, codes, k, exclude)
    if queries.shape[1] != codes.shape[1]:
        raise ValueError(
            f"queries and codes must be as wide, got {queries.shape[1]} and {codes.shape[1]}"
        )
    if scales is not None:
        _check_factors("scales", scales, (len(codes),))
    if choose_backend(codes.device, forced=backend) is Backend.REFERENCE:
        return reference.scan_int8(queries, codes, k, scales=scales, exclude=exclude)
    from muxrec_kernels.code_scan.scans import scan_int8 as run

    if queries.dtype != torch.int8:
        _check_triton(queries)
    return run(queries, codes, k, scales=scales, exclude=exclude)


def scan_packed(
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    bits: int,
    steps: Tensor,
    offsets: Tensor,
    exclude: Tensor | None = None,
    backend: Backend | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of every query with the largest ``sum_j q[j] * (offset + step * code[j])``.

    Float queries against packed codes: nothing of a query is rounded to the codes' few levels. With
    1 bit, offset -1 and step 2 these are dot products with signs.

    Args:
        queries: Finite float16, bfloat16 or float32 ``[Q, D]``.
        codes: From ``pack_codes``, uint8 ``[N, packed_bytes(D, bits)]``, N in ``[1, 2**31)``,
            contiguous.
        k: Results per query, in ``[1, min(N, 256)]``.
        bits: 1, 2 or 4.
        steps: Distance of two codes, finite float32 ``[N]``, or ``[1]`` for all items.
        offsets: What a code of 0 stands for, finite float32, as long as ``steps``.
        exclude: An item per query that is never a result, int64 ``[Q]``; -1, or None, for none.
        backend: Implementation to force; None lets the device decide.

    Returns:
        ``(scores, items)``: float32 and int64 ``[Q, k]``, the largest first, ties by the lower
        item. Where an exclusion leaves fewer than k items the last item is -1, its score -inf. The
        reference on float64 queries returns float64.

    Raises:
        ValueError: A shape, dtype or k is not as described.
        BackendError: The forced backend cannot run on the codes' device.
    """
    if bits not in PACKED_BITS:
        raise ValueError(f"bits must be one of {PACKED_BITS}, got {bits}")
    if codes.dtype != torch.uint8 or not queries.dtype.is_floating_point:
        raise ValueError(
            f"codes must be uint8 and queries floating-point, got {codes.dtype} and {queries.dtype}"
        )
    _check(queries, codes, k, exclude)
    if codes.shape[1] != packed_bytes(queries.shape[1], bits):
        raise ValueError(
            f"codes of {queries.shape[1]} numbers of {bits} bits must have "
            f"{packed_bytes(queries.shape[1], bits)} bytes, got {codes.shape[1]}"
        )
    lengths = (1, len(codes))
    _check_factors("steps", steps, lengths)
    _check_factors("offsets", offsets, (len(steps),))
    options = {"bits": bits, "steps": steps, "offsets": offsets, "exclude": exclude}
    if choose_backend(codes.device, forced=backend) is Backend.REFERENCE:
        return reference.scan_packed(queries, codes, k, **options)
    from muxrec_kernels.code_scan.scans import scan_packed as run

    _check_triton(queries)
    return run(queries, codes, k, **options)


def _check(queries: Tensor, codes: Tensor, k: int, exclude: Tensor | None) -> None:
    """Refuse what no backend could answer; values are trusted, since reading them would wait."""
    if codes.ndim != 2 or not codes.is_contiguous() or not 1 <= len(codes) < 2**31:
        raise ValueError(
            f"codes must be contiguous [N, w], 1 <= N < 2**31, got {tuple(codes.shape)}"
        )
    if queries.ndim != 2 or queries.shape[1] == 0:
        raise ValueError(f"queries must be [Q, w], got {tuple(queries.shape)}")
    most = min(len(codes), MOST_RESULTS)
    if not 1 <= k <= most:
        raise ValueError(f"k must be in [1, {most}] for {len(codes)} items, got {k}")
    if exclude is not None and (exclude.shape != (len(queries),) or exclude.dtype != torch.int64):
        raise ValueError(
            f"exclude must be an item per query, int64 [{len(queries)}], got {exclude.dtype} "
            f"{tuple(exclude.shape)}"
        )


def _check_factors(name: str, factors: Tensor, lengths: tuple[int, ...]) -> None:
    if factors.ndim != 1 or factors.numel() not in lengths or factors.dtype != torch.float32:
        expected = " or ".join(f"[{length}]" for length in lengths)
        raise ValueError(
            f"{name} must be float32 {expected}, got {factors.dtype} {tuple(factors.shape)}"
        )


def _check_triton(queries: Tensor) -> None:
    if queries.dtype not in FLOATS:
        raise ValueError(
            f"Triton multiplies float16, bfloat16 and float32 queries, got {queries.dtype}: cast "
            f"them, or pass backend='reference'"
        )
