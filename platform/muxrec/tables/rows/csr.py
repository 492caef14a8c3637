"""``csr``: of a pruned table, only the numbers that are left."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from muxrec.tables.rows.blocks import check_weight, dense_rows, refuse_group, row_blocks

MAX_NONZEROS = 2**31 - 2**16
"""So that a start and a place in the fullest row sum to an int32."""
BYTE_WIDTH, MAX_WIDTH = 2**8, 2**15
"""Columns are one byte up to the first width and two up to the second."""


class CsrRows(nn.Module):
    """Compressed sparse rows; nothing is lost but the sign of a zero.

    A lookup gathers as many entries as the fullest row has and scatters them into zeros, so its
    time is that of the fullest row and not of the average one.

    Attributes:
        starts: First entry of each row and the end of the last, int32 ``[R + 1]``.
        columns: Column of each entry, uint8 or int16 ``[N]``; one entry where there is none.
        values: float32 ``[N]``.
    """

    is_exact: ClassVar[bool] = True
    starts: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, width: int, starts: Tensor, columns: Tensor, values: Tensor) -> None:
        super().__init__()
        self.rows, self.width = len(starts) - 1, width
        self.longest = max(1, int(starts.diff().max()))
        self.register_buffer("starts", starts)
        self.register_buffer("columns", columns)
        self.register_buffer("values", values)

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The numbers of ``weight`` that are not 0, at most 2**31 - 2**16 of them."""
        refuse_group(group, what="csr")
        weight = check_weight(weight, what="csr")
        rows, width = weight.shape
        size = _column_bytes(width)
        starts = _starts(weight)
        count = max(1, int(starts[-1]))
        columns = weight.new_zeros(count, dtype=torch.uint8 if size == 1 else torch.int16)
        values = weight.new_zeros(count)
        for block in row_blocks(rows, width):
            entries = slice(int(starts[block.start]), int(starts[block.stop]))
            where = weight[block].nonzero()
            columns[entries] = where[:, 1].to(columns.dtype)
            values[entries] = weight[block][where[:, 0], where[:, 1]]
        return cls(width, starts.to(torch.int32), columns, values)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows int64 ``[...]`` -> float32 ``[..., d]``."""
        flat = rows.flatten()
        first = self.starts.index_select(0, flat)[:, None]
        last = self.starts.index_select(0, flat + 1)[:, None]
        places = torch.arange(self.longest, dtype=torch.int32, device=rows.device)
        entries = first + places
        is_entry = entries < last
        entries = torch.where(is_entry, entries, 0).flatten()
        columns = self.columns.index_select(0, entries).to(torch.int64).view(-1, self.longest)
        values = self.values.index_select(0, entries).view(-1, self.longest)
        # A place without an entry adds 0 to some column, which changes no bit of a sum from 0.
        values = torch.where(is_entry, values, 0.0)
        zeros = values.new_zeros(flat.shape[0], self.width)
        return zeros.scatter_add(1, columns, values).view(*rows.shape, self.width)

    def dense(self) -> Tensor:
        """The rows with their zeros, float32 ``[R, d]``."""
        return dense_rows(self, self.values.device)

    @property
    def served_bytes(self) -> int:
        """Bytes of starts, columns and values."""
        return self.starts.nbytes + self.columns.nbytes + self.values.nbytes

    @classmethod
    def bytes_for(
        cls, rows: int, width: int, *, group: int = 0, nonzeros: int | None = None
    ) -> int:
        """Five or six bytes per number that is not 0, and four per row."""
        refuse_group(group, what="csr")
        entries = max(1, rows * width if nonzeros is None else nonzeros)
        return 4 * (rows + 1) + (4 + _column_bytes(width)) * entries


def _starts(weight: Tensor) -> Tensor:
    """First entry of each row and the end of the last, int64 ``[R + 1]``."""
    starts = torch.zeros(len(weight) + 1, dtype=torch.int64, device=weight.device)
    for block in row_blocks(*weight.shape):
        starts[block.start + 1 : block.stop + 1] = torch.count_nonzero(weight[block], dim=1)
    torch.cumsum(starts, 0, out=starts)
    if starts[-1] > MAX_NONZEROS:
        raise ValueError(
            f"csr rows hold at most {MAX_NONZEROS} numbers, this table has {int(starts[-1])}: "
            "prune it further or serve it in another format"
        )
    return starts


def _column_bytes(width: int) -> int:
    """Bytes of a column's number."""
    if width > MAX_WIDTH:
        raise ValueError(f"csr rows have at most {MAX_WIDTH} numbers, got a width of {width}")
    return 1 if width <= BYTE_WIDTH else 2
