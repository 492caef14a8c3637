"""The contrastive loss's forward kernels: grids, workspace, what is computed around them.

Nothing here waits for the device.
"""

from __future__ import annotations

import math
import os
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from muxrec_kernels.contrastive_loss.rules import Rules
from muxrec_kernels.contrastive_loss.tiles import (
    Tile,
    Tiles,
    ceiling,
    lanes,
    padded_width,
    row_warps,
)
from muxrec_kernels.tiles import next_power_of_2

LOG2_E = math.log2(math.e)


class Problem(NamedTuple):
    """A loss to compute, with everything that both passes read.

    Attributes:
        queries: Contiguous ``[Q, D]``.
        candidates: Contiguous ``[C, D]``, of the same type.
        scale: float32 ``[1]``.
        terms: float32 ``[C]``: column bias times log2(e); -inf where a candidate is missing.
        rules: The relation.
        tiles: Shapes of the programs.
        precision: Of float32 products: ``ieee``, ``tf32x3`` or ``tf32``.
    """

    queries: Tensor
    candidates: Tensor
    scale: Tensor
    terms: Tensor
    rules: Rules
    tiles: Tiles
    precision: str


class Passed(NamedTuple):
    """What the forward pass leaves.

    Attributes:
        scores: Of the positives, float32 ``[P]``, times log2(e); -inf where ignored.
        kept: Their weights, float32 ``[P]``; 0 where ignored.
        query_terms: -lse, float32 ``[Q]``, times log2(e); -inf where a query asks for nothing.
        inverse: 1 / weight of the row, float32 ``[Q]``; 0 where a query asks for nothing.
        losses: float32 ``[Q]``; 0 where a query asks for nothing.
    """

    scores: Tensor
    kept: Tensor
    query_terms: Tensor
    inverse: Tensor
    losses: Tensor


def column_terms(rules: Rules, candidates: int) -> Tensor:
    """What is added to each column, float32 ``[C]``, in powers of two."""
    if rules.column_bias is None:
        terms = torch.zeros(candidates, device=rules.offsets.device)
    else:
        terms = rules.column_bias * LOG2_E
    if rules.candidate_missing is None:
        return terms
    return terms.masked_fill(rules.candidate_missing, float("-inf"))


def launch_forward(kernels: ModuleType, problem: Problem) -> Passed:
    """Log-sum-exp of every row by tiles, then one program per query for its positives."""
    queries, candidates, rules = problem.queries, problem.candidates, problem.rules
    count, width = queries.shape
    tile = problem.tiles.forward
    span, splits = split_columns(tile, problem.tiles.programs, count, len(candidates))
    parts = torch.empty(splits, count, device=queries.device)
    kernels.forward_kernel[(ceiling(count, tile.rows), splits)](
        queries,
        candidates,
        problem.scale,
        problem.terms,
        *items_of(problem),
        *ignored_of(problem),
        parts,
        count,
        len(candidates),
        span,
        CHUNK=tile.chunk,
        **constants(problem, tile),
    )
    positives, device = rules.columns.numel(), queries.device
    sizes = (positives, positives, count, count, count)
    passed = Passed(*(torch.empty(size, device=device) for size in sizes))
    kernels.positives_kernel[(count,)](
        queries,
        candidates,
        problem.scale,
        problem.terms,
        parts,
        rules.offsets,
        rules.columns,
        rules.weights,
        *items_of(problem),
        *ignored_of(problem),
        rules.offsets if rules.query_missing is None else rules.query_missing,
        *passed,
        count,
        D=width,
        D_PADDED=padded_width(width),
        LANES=lanes(width),
        SPLITS=splits,
        SPLITS_PADDED=next_power_of_2(splits),
        SAME_ITEM=rules.query_items is not None,
        LISTED=rules.ignored_offsets is not None,
        MISSING=rules.query_missing is not None,
        num_warps=row_warps(width),
    )
    return passed


def split_columns(tile: Tile, programs: int, rows: int, columns: int) -> tuple[int, int]:
    """Columns of a split, a multiple of the tile's, and how many splits there are."""
    tiles = ceiling(columns, tile.columns)
    span = ceiling(tiles, min(tiles, ceiling(programs, ceiling(rows, tile.rows))))
    return span * tile.columns, ceiling(tiles, span)


def constants(problem: Problem, tile: Tile) -> dict[str, object]:
    """Compile-time arguments that all kernels over tiles of scores share."""
    width = problem.queries.shape[1]
    return {
        "D": width,
        "D_PADDED": padded_width(width),
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "SAME_ITEM": problem.rules.query_items is not None,
        "LISTED": problem.rules.ignored_offsets is not None,
        "PRECISION": problem.precision,
        "AS_FLOAT32": is_cast(problem.queries.dtype),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def items_of(problem: Problem) -> tuple[Tensor, Tensor]:
    """Items of both sides; something that is never read where the rules have none."""
    queries, candidates = problem.rules.query_items, problem.rules.candidate_items
    if queries is None or candidates is None:
        return problem.rules.offsets, problem.rules.offsets
    return queries, candidates


def ignored_of(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ignored columns by query; something that is never read where the rules have none."""
    offsets, columns = problem.rules.ignored_offsets, problem.rules.ignored_columns
    if offsets is None or columns is None:
        return problem.rules.offsets, problem.rules.offsets
    return offsets, columns


def is_cast(dtype: torch.dtype) -> bool:
    """Triton's interpreter multiplies bfloat16 by its bits; there it is cast first."""
    return dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1"
