"""The canonical state of tables: plain arrays, the same whichever engine trained them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.spec.hashing import HASH_VERSION
from muxrec.tables.lowering import Lowering
from muxrec.tables.methods.addresses import VocabularyIndex
from muxrec.tables.methods.protocol import PhysicalTable

CODES = {"int8": torch.int8, "int16": torch.int16, "alpt": torch.int8}
"""Integers that stand for the rows of a table, by its storage; other rows are floats."""


@dataclass(frozen=True, eq=False)
class TableRows:
    """A contiguous range of one physical table's rows, or of some columns of them.

    Attributes:
        total: Rows of the whole table.
        start: Number of the first row held here.
        weight: Rows, float32 ``[r, d]``, or the integers that stand for them, int8 or int16.
        momentum: Row-wise Adagrad's sum of mean squared gradients, or RMSProp's mean of them,
            float32 ``[r]``.
        scale: Size of a step of each row's integers, float32 ``[r]``, or ``[1]`` for all rows; None
            for float rows.
        left: Number of the first column held here.
        of_width: Columns of the whole table; None where all are held here.
        updates: How often the table was updated, int64 ``[1]``, where the next update depends on
            it: integers are rounded by other numbers, RMSProp corrects by it. Else None.
        is_replicated: Whether every process holds the same rows, so that one of them writes them.
    """

    total: int
    start: int
    weight: Tensor
    momentum: Tensor
    scale: Tensor | None = None
    left: int = 0
    of_width: int | None = None
    updates: Tensor | None = None
    is_replicated: bool = False

    @property
    def width(self) -> int:
        """Columns of the whole table."""
        return self.weight.shape[1] if self.of_width is None else self.of_width

    @property
    def right(self) -> int:
        """One past the last column held here."""
        return self.left + self.weight.shape[1]

    @property
    def range(self) -> tuple[int, ...]:
        """First row and one past the last; first column and one past the last where some miss."""
        rows = (self.start, self.stop)
        return rows if self.of_width is None else (*rows, self.left, self.right)

    @property
    def stop(self) -> int:
        """One past the last row held here."""
        return self.start + self.weight.shape[0]

    def slice(self, start: int, stop: int) -> TableRows:
        """Rows ``start`` to ``stop`` as a view.

        Raises:
            TrainingError: Some of them are not held here.
        """
        if not self.start <= start <= stop <= self.stop:
            raise TrainingError(
                f"rows {start}..{stop} were asked for, this state holds {self.start}..{self.stop}"
            )
        low, high = start - self.start, stop - self.start
        scale = self.scale
        if scale is not None and self.has_row_scales:
            scale = scale[low:high]
        return replace(
            self,
            start=start,
            weight=self.weight[low:high],
            momentum=self.momentum[low:high],
            scale=scale,
        )

    @property
    def has_row_scales(self) -> bool:
        """Whether every row has a scale of its own."""
        return self.scale is not None and self.scale.shape[0] == self.weight.shape[0]

    def slice_columns(self, left: int, right: int) -> TableRows:
        """Columns ``left`` to ``right`` as a view.

        Raises:
            TrainingError: Some of them are not held here.
        """
        if not self.left <= left <= right <= self.right:
            raise TrainingError(
                f"columns {left}..{right} were asked for, this state holds "
                f"{self.left}..{self.right}"
            )
        weight = self.weight[:, left - self.left : right - self.left]
        return replace(self, weight=weight, left=left, of_width=self.width)

    def copied(self) -> TableRows:
        """A copy on the CPU."""
        return replace(
            self,
            weight=self.weight.detach().cpu().clone(),
            momentum=self.momentum.cpu().clone(),
            scale=None if self.scale is None else self.scale.detach().cpu().clone(),
            updates=None if self.updates is None else self.updates.cpu().clone(),
        )

    def take(self, rows: TableRows) -> None:
        """Write the same rows of another state over these, where they lie."""
        self.weight.copy_(rows.weight)
        self.momentum.copy_(rows.momentum)
        for mine, other in ((self.scale, rows.scale), (self.updates, rows.updates)):
            if mine is not None and other is not None:
                mine.copy_(other)

    def floats(self) -> Tensor:
        """The rows as float32 ``[r, d]``."""
        if self.scale is None:
            return self.weight
        return self.weight.float() * self.scale[:, None]


@dataclass(frozen=True, eq=False)
class TableState:
    """Everything that training changed in the tables, with what it is only valid for.

    Attributes:
        reads: ``table <- feature#probe seed`` of every read, sorted: the meaning of the rows.
        tables: Physical table name -> its rows (on one rank of many, its share of them).
        hash_version: Hash spec that filled the rows.
    """

    reads: tuple[str, ...]
    tables: dict[str, TableRows]
    hash_version: str = HASH_VERSION


def describe_reads(lowering: Lowering) -> tuple[str, ...]:
    """One line per read with all that decides its rows; the fingerprint of a table state."""
    words = {name: VocabularyIndex(known).fingerprint for name, known in lowering.known.items()}
    return tuple(
        sorted(
            " ".join(
                [
                    f"{group.table.name} <- {read.key}",
                    read.address.fingerprint,
                    *([words[read.feature]] if read.feature in words else []),
                ]
            )
            for group in lowering.groups
            for read in group.reads
        )
    )


def check_state(state: TableState, lowering: Lowering) -> None:
    """Refuse a state whose rows would mean something else under ``lowering``.

    Raises:
        TrainingError: Another hash spec, other reads, or another table size; the first difference
            is named.
    """
    if state.hash_version != HASH_VERSION:
        raise TrainingError(
            f"the tables were trained with hash spec {state.hash_version}, this muxrec has "
            f"{HASH_VERSION}: train again"
        )
    wanted = describe_reads(lowering)
    if state.reads != wanted:
        extra = sorted({*state.reads} ^ {*wanted})
        raise TrainingError(
            f"the saved tables were trained for other reads; first difference: {extra[0]}. "
            "Use the recipe that they were trained with, or train again"
        )
    for group in lowering.groups:
        rows, table = state.tables[group.table.name], group.table
        if (rows.total, rows.width) != (table.rows, table.width):
            raise TrainingError(
                f"tables.{table.name} has {table.rows} rows of width {table.width}, the saved one "
                f"{rows.total} of {rows.width}: use the recipe that it was trained with"
            )
        _check_numbers(table, rows.weight.dtype)


def _check_numbers(table: PhysicalTable, found: torch.dtype) -> None:
    """Refuse floats for integers and integers for floats: copied, they would mean something else.

    Raises:
        TrainingError: The rows are not of the table's storage.
    """
    wanted = CODES.get(table.storage)
    if found != wanted if wanted is not None else not found.is_floating_point:
        raise TrainingError(
            f"tables.{table.name} holds {str(wanted or torch.float32).removeprefix('torch.')} rows "
            f"({table.storage}), the saved one {str(found).removeprefix('torch.')}: use the recipe "
            "that it was trained with, or train again"
        )
