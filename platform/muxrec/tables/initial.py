"""Initial rows: a function of seed, table name and row number, whatever the engine or the ranks.

Rows are drawn in blocks, each with a generator of its own, so a rank makes only the rows it holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from muxrec.spec.hashing import BASE_SEED, hash_bytes, hash_ids
from muxrec.tables.lowering import Group, Lowering
from muxrec.tables.methods.protocol import PhysicalTable

BLOCK = 65_536


def initial_rows(
    table: PhysicalTable,
    seed: int,
    *,
    start: int = 0,
    stop: int | None = None,
    left: int = 0,
    right: int | None = None,
) -> Tensor:
    """Rows ``start`` to ``stop`` of a fresh table; see ``PhysicalTable`` for their range.

    Args:
        table: The table; its name salts the numbers, so tables start independent of each other.
        seed: The run's seed, int64.
        start: First row.
        stop: One past the last row; None for all.
        left: First column.
        right: One past the last column; None for all.

    Returns:
        float32 ``[stop - start, right - left]``; no rows where ``stop <= start``.
    """
    end, edge = table.rows if stop is None else stop, table.width if right is None else right
    rows = torch.empty(max(0, end - start), edge - left)
    salt = hash_ids([seed], hash_bytes([table.name.encode()], BASE_SEED)[0])[0]
    for block in range(start // BLOCK, -(-end // BLOCK) if end > start else 0):
        generator = torch.Generator().manual_seed(int(hash_ids([block], salt)[0]))
        first = block * BLOCK
        drawn = torch.rand(min(BLOCK, table.rows - first), table.width, generator=generator)
        low, high = max(start, first), min(end, first + BLOCK)
        rows[low - start : high - start] = drawn[low - first : high - first, left:edge]
    rows.mul_(2).sub_(1)
    if table.floor:
        rows = rows.sign() * (table.floor + rows.abs() * (table.init - table.floor))
        return rows.add_(table.center)
    return rows.mul_(table.init).add_(table.center)


def first_rows(
    lowering: Lowering, group: Group, seed: int, *, left: int = 0, right: int | None = None
) -> Tensor:
    """All first rows of a group's table, or some columns of them: of an earlier stage, or drawn."""
    values = lowering.values.get(group.table.name)
    if values is None:
        return initial_rows(group.table, seed, left=left, right=right)
    return values[:, left:right].to(torch.float32, copy=True).contiguous()


def fill_initial(
    weight: Tensor, table: PhysicalTable, seed: int, *, start: int = 0, left: int = 0
) -> None:
    """Fill ``weight`` in place, block by block: rows ``start`` and columns ``left`` onwards."""
    end, right = start + weight.shape[0], left + weight.shape[1]
    for at in range(start, end, BLOCK):
        stop = min(at + BLOCK, end)
        drawn = initial_rows(table, seed, start=at, stop=stop, left=left, right=right)
        weight[at - start : stop - start].copy_(drawn)
