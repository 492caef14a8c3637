"""The canonical state of tables: plain arrays, the same whichever engine trained them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from muxrec.errors import TrainingError
from muxrec.spec.hashing import HASH_VERSION
from muxrec.tables.lowering import Lowering
from muxrec.tables.methods.addresses import VocabularyIndex


@dataclass(frozen=True, eq=False)
class TableRows:
    """A contiguous range of one physical table's rows, or of some columns of them.

    Attributes:
        total: Rows of the whole table.
        start: Number of the first row held here.
        weight: Rows, float32 ``[r, d]``, or the integers that stand for them, int8 or int16.
        momentum: Row-wise Adagrad's sum of mean squared gradients, float32 ``[r]``.
        scale: Size of a step of each row's integers, float32 ``[r]``; None for float rows.
        left: Number of the first column held here.
        of_width: Columns of the whole table; None where all are held here.
    """

    total: int
    start: int
    weight: Tensor
    momentum: Tensor
    scale: Tensor | None = None
    left: int = 0
    of_width: int | None = None

    @property
    def width(self) -> int:
        """Columns of the whole table."""
        return self.weight.shape[1] if self.of_width is None else self.of_width

    @property
    def right(self) -> int:
        """One past the last column held here."""
        return self.left + self.weight.shape[1]

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
        scale = None if self.scale is None else self.scale[low:high]
        return replace(
            self,
            start=start,
            weight=self.weight[low:high],
            momentum=self.momentum[low:high],
            scale=scale,
        )

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
        )

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
