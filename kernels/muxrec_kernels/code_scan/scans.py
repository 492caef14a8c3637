"""The three scans on Triton: what each asks, and how its keys read as scores."""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec_kernels.code_scan import launch, triton_kernel
from muxrec_kernels.code_scan.launch import Plan, choose_plan


def scan_signs(
    queries: Tensor, codes: Tensor, k: int, *, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`muxrec_kernels.code_scan.scan_signs`; bytes."""
    count = len(queries)
    if count == 0:
        return _nothing(codes, k, torch.int32)
    is_counted = count < launch.MULTIPLIED
    words = codes.shape[1] // 4 if is_counted else 0
    plan = choose_plan(count, len(codes), k, words=words)
    scan = launch.scan_signs if is_counted else launch.multiply_signs
    return scan(triton_kernel, queries, codes, k, exclude=_dense(exclude), plan=plan)


def scan_int8(
    queries: Tensor, codes: Tensor, k: int, *, scales: Tensor | None, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`muxrec_kernels.code_scan.scan_int8`."""
    is_whole = queries.dtype == torch.int8
    if len(queries) == 0:
        return _nothing(codes, k, torch.int32 if is_whole and scales is None else torch.float32)
    asked = (
        launch.ask_bytes(queries)
        if is_whole
        else launch.ask_numbers(queries, bits=8, size=codes.shape[1], with_sums=False)
    )
    keys = launch.scan_dots(
        triton_kernel,
        asked,
        codes.view(torch.uint8),
        k,
        bits=8,
        steps_of=_dense(scales),
        offsets_of=None,
        exclude=_dense(exclude),
        plan=_plan(queries, codes, k),
    )
    order, items = launch.read_keys(keys)
    return order if is_whole and scales is None else launch.read_floats(order), items


def scan_packed(
    queries: Tensor,
    codes: Tensor,
    k: int,
    *,
    bits: int,
    steps: Tensor,
    offsets: Tensor,
    exclude: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`muxrec_kernels.code_scan.scan_packed`."""
    if len(queries) == 0:
        return _nothing(codes, k, torch.float32)
    keys = launch.scan_dots(
        triton_kernel,
        launch.ask_numbers(queries, bits=bits, size=codes.shape[1], with_sums=True),
        codes,
        k,
        bits=bits,
        steps_of=_dense(steps),
        offsets_of=_dense(offsets),
        exclude=_dense(exclude),
        plan=_plan(queries, codes, k),
    )
    order, items = launch.read_keys(keys)
    return launch.read_floats(order), items


def _plan(queries: Tensor, codes: Tensor, k: int) -> Plan:
    return choose_plan(len(queries), len(codes), k)


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _nothing(codes: Tensor, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Results of no query."""
    empty = torch.empty(0, k, dtype=dtype, device=codes.device)
    return empty, empty.long()
