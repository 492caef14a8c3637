"""Gradients of the arrays' rows: lookups sorted by row and summed in a fixed order.

A stable sort brings a row's lookups together in the order of their numbers. Long runs are cut at
multiples of ``RUN`` lookups, so that a row that half of the batch reads is not left to one program,
and the parts are added in order: the same bits on every run.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.tiles import next_power_of_2, segment_lanes

RUN = 1024
"""Lookups that one program sums at most: 1 to 128 steps of its loop, by width."""


class Terms(NamedTuple):
    """Every lookup of one array, in the order of the ids.

    Attributes:
        rows: The row that it read, int64 or int32 ``[M]``.
        sources: The vector of the outer gradient that it fed, int64 ``[M]``.
        scales: What it was multiplied by, float32 ``[M]``; None for 1.
        other_rows: The row that it was multiplied by, number by number, int64 ``[M]``.
        shifts: Number of the source that belongs to a row's number 0, int32 ``[M]``; None for 0.
    """

    rows: Tensor
    sources: Tensor
    scales: Tensor | None = None
    other_rows: Tensor | None = None
    shifts: Tensor | None = None


def sum_by_row(
    kernels: ModuleType,
    grad: Tensor,
    terms: Terms,
    *,
    others: Tensor | None = None,
    run: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Distinct rows read, int64 ``[U]`` rising, and the sums of their terms, float32 ``[U, d]``.

    The number of distinct rows sizes the result, so the host waits for the device once.

    Args:
        kernels: The kernels' module.
        grad: Vectors that the sources number, float32 ``[S, d]``, contiguous.
        terms: The lookups.
        others: The array of ``terms.other_rows``, ``[R, d]``.
        run: Lookups between two cuts; None for ``RUN``.
    """
    run, count, width = run or RUN, terms.rows.numel(), grad.shape[1]
    ordered, order = torch.sort(terms.rows.to(torch.int32), stable=True)
    used, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    begins, ends = _runs(starts, count, run)
    values = torch.empty(begins.numel(), width, dtype=torch.float32, device=grad.device)
    if used.numel() == 0:
        return used.long(), values
    sources, scales, other_rows, shifts = (
        None if each is None else each[order] for each in terms[1:]
    )
    constants = {
        "D": width,
        "D_PADDED": next_power_of_2(width),
        "LANES": segment_lanes(width),
        "num_warps": 1,
    }
    kernels.row_sums_kernel[(begins.numel(),)](
        grad,
        sources,
        grad if scales is None else scales,
        grad if others is None else others,
        sources if other_rows is None else other_rows,
        sources if shifts is None else shifts,
        begins,
        ends,
        values,
        SCALED=scales is not None,
        MULTIPLIED=others is not None,
        SHIFTED=shifts is not None,
        **constants,
    )
    if begins.numel() > used.numel():
        kernels.merge_kernel[(used.numel(),)](values, starts, used.numel(), RUN=run, **constants)
    return used.long(), values[: used.numel()]


def _runs(starts: Tensor, count: int, run: int) -> tuple[Tensor, Tensor]:
    """Lookups of each program: rows up to their first cut, then what follows each cut.

    A cut at which a row begins has nothing of its own: that row's program goes on to the next cut.
    """
    first, last = starts[:-1], starts[1:]
    to_cut = torch.minimum(last, (torch.div(first, run, rounding_mode="trunc") + 1) * run)
    cuts = torch.arange(run, max(run, count), run, device=starts.device)
    row = torch.searchsorted(starts, cuts, right=True) - 1
    after = torch.minimum(last[row], cuts + run)
    after = torch.where(first[row] == cuts, cuts, after)
    return torch.cat([first, cuts]), torch.cat([to_cut, after])


def sparse_rows(rows: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """The gradient of ``like`` as a coalesced sparse tensor of its dtype."""
    return torch.sparse_coo_tensor(
        rows[None], values.to(like.dtype), like.shape, is_coalesced=True, check_invariants=False
    )


def bags_of_ids(offsets: Tensor, count: int) -> Tensor:
    """The bag of each of ``count`` ids, int64 ``[N]``."""
    return torch.repeat_interleave(offsets.diff(), output_size=count)


def id_scales(
    offsets: Tensor, bags: Tensor, weights: Tensor | None, exponent: float
) -> Tensor | None:
    """What each id's vector is multiplied by in its bag, float32 ``[N]``; None for 1."""
    if exponent == 0.0:
        return weights
    scales = offsets.diff().clamp(min=1).float().pow(-exponent)[bags]
    return scales if weights is None else scales * weights
