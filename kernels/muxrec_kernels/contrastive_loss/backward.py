"""The contrastive loss's gradient kernels: dense passes, slabs, and the positives at the end.

Nothing here waits for the device.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.contrastive_loss.launch import (
    Passed,
    Problem,
    constants,
    ignored_of,
    is_cast,
    items_of,
    split_columns,
)
from muxrec_kernels.contrastive_loss.tiles import ceiling, lanes, padded_width, row_warps

SLAB_BYTES = 64 * 2**20
"""Probabilities held in memory at once where vectors are wide."""

LEAST_SLAB_ROWS = 512
FLOAT16_SHIFT = 14
"""Float16 probabilities are held times 2**14: below 2**-14 it has fewer than 11 bits."""


class Lists(NamedTuple):
    """Entries of a relation by row: ``places[offsets[r]:offsets[r + 1]]``, rising.

    Attributes:
        offsets: int64 ``[R + 1]``.
        places: The other side of each entry, int64 ``[n]``.
        entries: Its number in the lists by query, int64 ``[n]``.
    """

    offsets: Tensor
    places: Tensor
    entries: Tensor


def launch_backward(
    kernels: ModuleType, problem: Problem, passed: Passed, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries and candidates, and each query's part of the scale's.

    Args:
        kernels: The module of the kernels.
        problem: As for the forward pass.
        passed: What it left.
        factor: Of all gradients but the scale's, float32 ``[1]``.

    Returns:
        float32 ``[Q, D]``, float32 ``[C, D]`` and, before the factor, float32 ``[Q]``.
    """
    dense = _through_slabs if problem.tiles.slabs else _held
    query_parts, candidate_parts = dense(kernels, problem, passed)
    rules = problem.rules
    by_query = Lists(rules.offsets, rules.columns, rules.columns)
    by_candidate = transposed(rules.offsets, rules.columns, len(problem.candidates))
    queries, dots = _finish(kernels, problem, passed, query_parts, by_query, factor, False)
    candidates, _ = _finish(kernels, problem, passed, candidate_parts, by_candidate, factor, True)
    return queries, candidates, dots


def transposed(offsets: Tensor, columns: Tensor, candidates: int) -> Lists:
    """Lists by query as lists by candidate; queries rise within a candidate."""
    device = columns.device
    queries = torch.arange(len(offsets) - 1, device=device)
    rows = queries.repeat_interleave(offsets.diff(), output_size=columns.numel())
    ordered, order = columns.sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(candidates + 1, device=device))
    return Lists(starts, rows[order], order)


def _held(kernels: ModuleType, problem: Problem, passed: Passed) -> tuple[Tensor, Tensor]:
    """Dense sums ``[splits, R, D]`` of both sides, every score computed twice."""
    queries, candidates, rules = problem.queries, problem.candidates, problem.rules
    query_terms = passed.query_terms + _shift(problem)
    query_items, candidate_items = items_of(problem)
    listed = None
    if rules.ignored_offsets is not None and rules.ignored_columns is not None:
        listed = transposed(rules.ignored_offsets, rules.ignored_columns, len(candidates))
    by_query = (queries, candidates, problem.scale, query_terms, problem.terms)
    by_candidate = (candidates, queries, problem.scale, problem.terms, query_terms)
    found = _pass(kernels, problem, by_query, (query_items, candidate_items), ignored_of(problem))
    lists = (rules.offsets, rules.columns) if listed is None else (listed.offsets, listed.places)
    items = (candidate_items, query_items)
    return found, _pass(kernels, problem, by_candidate, items, lists)


def _pass(
    kernels: ModuleType,
    problem: Problem,
    sides: tuple[Tensor, ...],
    items: tuple[Tensor, Tensor],
    lists: tuple[Tensor, Tensor],
) -> Tensor:
    rows, columns = len(sides[0]), len(sides[1])
    tile = problem.tiles.gradient
    span, splits = split_columns(tile, problem.tiles.programs, rows, columns)
    out = torch.empty(splits, rows, sides[0].shape[1], device=sides[0].device)
    grid = (ceiling(rows, tile.rows), splits)
    settings = constants(problem, tile)
    kernels.gradient_kernel[grid](*sides, *items, *lists, out, rows, columns, span, **settings)
    return out


def _through_slabs(kernels: ModuleType, problem: Problem, passed: Passed) -> tuple[Tensor, Tensor]:
    """Dense sums ``[1, R, D]`` of both sides, from some rows of probabilities at a time."""
    queries, candidates = problem.queries, problem.candidates
    count, columns = len(queries), len(candidates)
    tile, shape = problem.tiles.gradient, (1, columns, queries.shape[1])
    stride = ceiling(columns, 16) * 16
    held = torch.float32 if is_cast(queries.dtype) else queries.dtype
    rows = _slab_rows(count, stride * held.itemsize)
    slab = torch.empty(rows, stride, dtype=held, device=queries.device)
    query_terms = passed.query_terms + _shift(problem)
    query_items, candidate_items = items_of(problem)
    offsets, listed = ignored_of(problem)
    by_query = torch.zeros(1, *queries.shape, device=queries.device)
    by_candidate = torch.zeros(shape, device=queries.device)
    for first in range(0, count, rows):
        some = queries[first : first + rows]
        kernels.slab_kernel[(ceiling(len(some), tile.rows), ceiling(columns, tile.columns))](
            some,
            candidates,
            problem.scale,
            query_terms[first:],
            problem.terms,
            query_items[first:],
            candidate_items,
            offsets[first:],
            listed,
            slab,
            len(some),
            columns,
            stride,
            CHUNK=tile.chunk,
            **constants(problem, tile),
        )
        shares = slab[: len(some), :columns]
        _add_product(by_query[0, first : first + rows], shares, candidates)
        _add_product(by_candidate[0], shares.T, some)
    return by_query, by_candidate


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right`` with float32 sums."""
    if total.is_cuda and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(left.float(), right.float())


def _finish(
    kernels: ModuleType,
    problem: Problem,
    passed: Passed,
    parts: Tensor,
    lists: Lists,
    factor: Tensor,
    by_candidate: bool,
) -> tuple[Tensor, Tensor]:
    own, others = problem.queries, problem.candidates
    if by_candidate:
        own, others = others, own
    rows, width = own.shape
    out = torch.empty(rows, width, device=own.device)
    dots = torch.empty(0 if by_candidate else rows, device=own.device)
    kernels.finish_kernel[(rows,)](
        parts,
        own,
        others,
        *lists,
        passed.scores,
        passed.kept,
        passed.query_terms,
        passed.inverse,
        factor,
        out,
        dots,
        rows,
        D=width,
        D_PADDED=padded_width(width),
        LANES=lanes(width),
        SPLITS=len(parts),
        BY_CANDIDATE=by_candidate,
        BITS=_bits(own.dtype),
        SHIFT=_shift(problem),
        num_warps=row_warps(width),
    )
    return out, dots


def _slab_rows(count: int, row_bytes: int) -> int:
    rows = max(LEAST_SLAB_ROWS, min(count // 16, SLAB_BYTES // row_bytes) // 128 * 128)
    return min(rows, count)


def _bits(dtype: torch.dtype) -> int:
    if dtype == torch.float32 or is_cast(dtype):
        return 32
    return 16 if dtype == torch.bfloat16 else 10


def _shift(problem: Problem) -> int:
    return FLOAT16_SHIFT if problem.queries.dtype == torch.float16 else 0
