"""Which numbers of a table share one scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from muxrec.tables.rows.blocks import row_blocks

MAX_GROUP = 2**20
"""Larger groups would save no bytes that count, and a group is held in memory several times."""


@dataclass(frozen=True)
class ScaleGroups:
    """Scales in lines: a row reads the ``per_row`` scales of one line, k rows read the same line.

    Attributes:
        rows: R, less than 2**31.
        width: d.
        per_row: Scales side by side in a row, each for ``width / per_row`` numbers.
        rows_per_line: k; not 1 only where ``per_row`` is 1.
    """

    rows: int
    width: int
    per_row: int = 1
    rows_per_line: int = 1

    @classmethod
    def of(cls, rows: int, width: int, group: int) -> ScaleGroups:
        """Groups of ``group`` numbers; 0 for the numbers of a row.

        Raises:
            ValueError: ``group`` neither divides the width nor is a multiple of it, or is negative
                or above ``MAX_GROUP``.
        """
        if not 0 <= group <= MAX_GROUP:
            raise ValueError(f"group must be in [0, {MAX_GROUP}], got {group}")
        if group in (0, width):
            return cls(rows, width)
        if group < width and width % group == 0:
            return cls(rows, width, per_row=width // group)
        if group > width and group % width == 0:
            return cls(rows, width, rows_per_line=group // width)
        raise ValueError(f"group must divide the width {width} or be a multiple of it, got {group}")

    @property
    def lines(self) -> int:
        """Lines of scales."""
        return -(-self.rows // self.rows_per_line)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of rows with the slice of the lines that they read.

        The rows of one group are in one slice; a last group of fewer rows is a slice of its own.
        """
        each = self.rows_per_line
        whole = self.rows - self.rows % each
        for block in row_blocks(whole, self.width, multiple=each):
            yield block, slice(block.start // each, block.stop // each)
        if whole < self.rows:
            yield slice(whole, self.rows), slice(self.lines - 1, self.lines)

    def split(self, block: Tensor, lines: slice) -> Tensor:
        """The rows of a block, ``[n, d]``, as one line per scale, ``[groups, numbers]``."""
        return block.reshape((lines.stop - lines.start) * self.per_row, -1)

    def line_of(self, rows: Tensor) -> Tensor:
        """Line of each row, int64: ``rows // rows_per_line`` of rows in ``[0, 2**31)``.

        The division is a multiplication and a shift, exact for 31 bits: int64 floor division
        exports silently wrong.

        Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication, 1994.
        """
        if self.rows_per_line == 1:
            return rows
        shift = 31 + (self.rows_per_line - 1).bit_length()
        return (rows * -(-(1 << shift) // self.rows_per_line)) >> shift
