"""Rows of codes of a few bits: what ``int4`` and ``int2`` are made of."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from muxrec.tables.rows.blocks import check_weight, dense_rows
from muxrec.tables.rows.groups import ScaleGroups
from muxrec.tables.rows.levels import fit_levels, nearest_levels
from muxrec.tables.rows.packing import pack, packed_width, unpack

LARGEST = 1e38
"""So that no step times a code overflows."""
TOP_EXPONENT = 15
"""In units of the table its largest number is below ``2**15``: offsets and steps fit in float16."""


class PackedRows(nn.Module):
    """Asymmetric codes: a number is ``offset + code * step`` of its group.

    Step and offset are float16 in a unit of the whole table, a power of two that puts its largest
    number near ``2**15``. So tables of any magnitude keep eleven bits of them, and rows down to a
    ``2**-29`` th of the largest row.

    Attributes:
        bits: Bits per code.
        codes: uint8 ``[R, packed_width]``, see :mod:`muxrec.tables.rows.packing`.
        levels: Step, offset, step, offset, ... of a line's groups, float16
            ``[lines, 2 * scales per row]``, see :class:`ScaleGroups`.
        unit: float32 scalar.
    """

    is_exact: ClassVar[bool] = False
    bits: ClassVar[int]
    codes: Tensor
    levels: Tensor
    unit: Tensor

    def __init__(self, groups: ScaleGroups, codes: Tensor, levels: Tensor, unit: Tensor) -> None:
        super().__init__()
        self.groups = groups
        self.rows, self.width = groups.rows, groups.width
        self.register_buffer("codes", codes)
        self.register_buffer("levels", levels)
        self.register_buffer("unit", unit)

    @classmethod
    def of(cls, weight: Tensor, *, group: int = 0) -> Self:
        """The rows of ``weight``, whose numbers are at most 1e38 in magnitude."""
        weight = check_weight(weight, what=f"int{cls.bits}", largest=LARGEST)
        groups, top = ScaleGroups.of(len(weight), weight.shape[1], group), 2**cls.bits - 1
        unit = _unit_of(weight)
        codes = weight.new_empty(
            groups.rows, packed_width(groups.width, cls.bits), dtype=torch.uint8
        )
        levels = weight.new_empty(groups.lines, 2 * groups.per_row, dtype=torch.float16)
        for rows, lines in groups.blocks():
            numbers = groups.split(weight[rows] / unit, lines)
            found = fit_levels(numbers, top)
            nearest = nearest_levels(numbers, found, top).to(torch.uint8)
            codes[rows] = pack(nearest.view(-1, groups.width), cls.bits)
            levels[lines] = found.view(-1, 2 * groups.per_row)
        return cls(groups, codes, levels, unit)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows int64 ``[...]`` -> float32 ``[..., d]``."""
        flat, groups = rows.flatten(), self.groups
        codes = unpack(self.codes.index_select(0, flat), self.bits, self.width)
        levels = self.levels.index_select(0, groups.line_of(flat)).to(torch.float32) * self.unit
        levels = levels.view(-1, groups.per_row, 2)
        parts = codes.view(-1, groups.per_row, self.width // groups.per_row)
        return (parts * levels[:, :, :1] + levels[:, :, 1:]).view(*rows.shape, self.width)

    def dense(self) -> Tensor:
        """The rows that the codes stand for, float32 ``[R, d]``."""
        return dense_rows(self, self.codes.device)

    @property
    def served_bytes(self) -> int:
        """Bytes of codes, steps, offsets and the unit."""
        return self.codes.nbytes + self.levels.nbytes + self.unit.nbytes

    @classmethod
    def bytes_for(
        cls,
        rows: int,
        width: int,
        *,
        group: int = 0,
        nonzeros: int | None = None,  # noqa: ARG003 - one protocol
    ) -> int:
        """The rows' bytes, four per step and offset, four for the unit."""
        groups = ScaleGroups.of(rows, width, group)
        return rows * packed_width(width, cls.bits) + 4 * groups.lines * groups.per_row + 4


def _unit_of(weight: Tensor) -> Tensor:
    """A power of two, float32 scalar; 1 for a table of zeros."""
    low, high = weight.aminmax()
    exponent = math.frexp(max(-float(low), float(high)))[1]
    # Smaller units have no float32 inverse.
    power = max(exponent - TOP_EXPONENT, -126) if low != high or low != 0 else 0
    return torch.tensor(2.0**power, device=weight.device)
