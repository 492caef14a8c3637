"""Tables in plain torch: the definition of correct, and what the ONNX export traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from muxrec.tables.bags import Bags
from muxrec.tables.features import Gathers, Vectors
from muxrec.tables.held import HeldOptimizer, HeldTable, hold
from muxrec.tables.initial import first_rows
from muxrec.tables.lowering import Lowering
from muxrec.tables.one_pass import compose, composed_features, covered_tables
from muxrec.tables.state import TableRows, TableState, check_state, describe_reads


class ReferenceTables(nn.Module):
    """Feature embeddings of one process, in plain torch.

    Args:
        lowering: What is read from where.
        seed: Seed of the initial rows.
        lr: Learning rate of the tables.
    """

    def __init__(self, lowering: Lowering, *, seed: int, lr: float) -> None:
        super().__init__()
        self.lowering = lowering
        self.lr = lr
        self.groups = nn.ModuleList(
            hold(group, lowering.poolings, first_rows(lowering, group, seed))
            for group in lowering.groups
        )
        self.vectors = Vectors(lowering)
        self._composed = composed_features(self.vectors, self.table_groups())
        self._covered = covered_tables(self._composed, self.table_groups())
        for name, rows in lowering.integers.items():
            next(t for t in self.table_groups() if t.group.table.name == name).load(rows)

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return self.lowering.widths

    def table_groups(self) -> list[HeldTable]:
        """The physical tables, in the lowering's order."""
        return [cast(HeldTable, group) for group in self.groups]

    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Vectors of every sparse feature.

        Args:
            sparse: Feature name -> bags of B items; names beyond the tables' own are ignored.

        Returns:
            Feature name -> float32 ``[B, width]``; zeros where a bag holds no (known) id.

        Raises:
            KeyError: A feature is missing from ``sparse``.
            ValueError: The features have different numbers of bags.
        """
        found = self.vectors.find(sparse)
        tables = self.table_groups()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vectors.rows_kept):
            ready = compose(self._composed, self.vectors, tables, found)
            done = self._covered if ready else frozenset()
            size = self.vectors.most_ids(found)
            parts = [
                {} if at in done else table(sparse, found, size) for at, table in enumerate(tables)
            ]
        return self.vectors(parts, found, ready)

    def lookup_padded(self, name: str, ids: Tensor, mask: Tensor) -> Tensor:
        """The vector of feature ``name`` from padded ids; see :meth:`Vectors.padded`."""
        return self.vectors.padded(name, ids, mask, cast("list[Gathers]", list(self.groups)))

    def table_optimizer(self) -> HeldOptimizer:
        """Row-wise Adagrad over all tables; its sums are part of the tables' state."""
        return HeldOptimizer(self.table_groups(), lr=self.lr)

    def row_ranges(self) -> dict[str, tuple[int, int]]:
        """First row and one past the last row held here, of every physical table: all of them."""
        return {group.table.name: (0, group.table.rows) for group in self.lowering.groups}

    def local_tables(self) -> dict[str, TableRows]:
        """The rows held here, as views that can be written to."""
        return {table.group.table.name: table.local() for table in self.table_groups()}

    def export_state(self) -> TableState:
        """A copy of all rows and their optimiser state, on the CPU."""
        tables = {name: rows.copied() for name, rows in self.local_tables().items()}
        return TableState(describe_reads(self.lowering), tables)

    def view_state(self) -> TableState:
        """The same as views, which the next update changes: no copy of the rows is made."""
        return TableState(describe_reads(self.lowering), self.local_tables())

    @torch.no_grad()
    def load_table_state(self, state: TableState) -> None:
        """Take over a state of any engine and any number of ranks.

        Raises:
            TrainingError: The state belongs to other features, tables or another hash spec, or does
                not hold all rows.
        """
        check_state(state, self.lowering)
        for table in self.table_groups():
            name, rows = table.group.table.name, table.group.table.rows
            table.load(state.tables[name].slice(0, rows))
