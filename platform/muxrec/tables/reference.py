"""Tables in plain torch: the definition of correct, and what the ONNX export traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.addressing import HashedRows, addressing, join_features
from muxrec.tables.bags import Bags
from muxrec.tables.features import Combine, divide_bags, pool_padded
from muxrec.tables.initial import initial_rows
from muxrec.tables.lowering import Group, Lowering
from muxrec.tables.optimizer import RowWiseAdagrad
from muxrec.tables.state import TableRows, TableState, check_state, describe_reads
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup, pool_rows


class TableGroup(nn.Module):
    """One physical table with the reads on it.

    Args:
        group: What is read.
        poolings: Pooling of each feature.
        rows: Initial rows, float32 ``[R, d]``; kept, not copied.
    """

    momentum: Tensor

    def __init__(self, group: Group, poolings: Mapping[str, str], rows: Tensor) -> None:
        super().__init__()
        self.group = group
        self.poolings = dict(poolings)
        self.weight = nn.Parameter(rows)
        self.address = addressing(group)
        self.register_buffer("momentum", rows.new_zeros(rows.shape[0]), persistent=False)

    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Each feature's pooled reads of this table, float32 ``[B, P * d]``."""
        names = self.group.features
        bags = join_features(sparse, names)
        if not isinstance(self.address, HashedRows):
            found = self.address(bags)
            sums = pool_rows(self.weight, found.rows, found.offsets)
            return {names[0]: divide_bags(sums, found.offsets.diff(), self.poolings[names[0]])}
        alike = len({self.poolings[name] for name in names}) == 1
        pooled = multiplexed_lookup(
            self.weight,
            bags.ids,
            bags.offsets,
            self.address.slot_features,
            self.address.seeds,
            batch_size=bags.batch_size,
            pooling=self.poolings[names[0]] if alike else "sum",
        )
        parts = dict(zip(names, pooled.split(self.group.chunks, dim=1), strict=True))
        if alike:
            return parts
        return {
            name: divide_bags(part, sparse[name].lengths(), self.poolings[name])
            for name, part in parts.items()
        }

    def lookup_padded(self, name: str, ids: Tensor, mask: Tensor) -> Tensor:
        """Pooled reads of feature ``name`` from padded ids, float32 ``[B, P * d]``."""
        rows, mask = self.address.padded(name, ids, mask)
        return pool_padded(F.embedding(rows, self.weight), mask, self.poolings[name])


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
        poolings = lowering.poolings
        self.groups = nn.ModuleList(
            TableGroup(group, poolings, initial_rows(group.table, seed))
            for group in lowering.groups
        )
        self.combine = Combine(lowering)

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return self.lowering.widths

    def table_groups(self) -> list[TableGroup]:
        """The physical tables, in the lowering's order."""
        return [cast(TableGroup, group) for group in self.groups]

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
        return self.combine([group(sparse) for group in self.table_groups()])

    def lookup_padded(self, name: str, ids: Tensor, mask: Tensor) -> Tensor:
        """The vector of feature ``name`` from padded ids, in operations that export to ONNX.

        Args:
            name: A sparse feature.
            ids: Raw ids, int64 ``[B, L]``; anything where the mask is 0.
            mask: 1 where an id is, else 0, float32 ``[B, L]``.

        Returns:
            float32 ``[B, width]``, equal to :meth:`forward` on the same bags.
        """
        parts = [
            {name: group.lookup_padded(name, ids, mask)}
            for group in self.table_groups()
            if name in group.group.features
        ]
        return self.combine(parts)[name]

    def table_optimizer(self) -> RowWiseAdagrad:
        """Row-wise Adagrad over all tables; its sums are part of the tables' state."""
        groups = self.table_groups()
        momenta = [group.momentum for group in groups]
        return RowWiseAdagrad([group.weight for group in groups], momenta, lr=self.lr)

    def row_ranges(self) -> dict[str, tuple[int, int]]:
        """First row and one past the last row held here, of every physical table: all of them."""
        return {group.table.name: (0, group.table.rows) for group in self.lowering.groups}

    def export_state(self) -> TableState:
        """A copy of all rows and their optimiser state, on the CPU."""
        tables = {
            group.group.table.name: TableRows(
                total=group.group.table.rows,
                start=0,
                weight=group.weight.detach().cpu().clone(),
                momentum=group.momentum.detach().cpu().clone(),
            )
            for group in self.table_groups()
        }
        return TableState(describe_reads(self.lowering), tables)

    @torch.no_grad()
    def load_table_state(self, state: TableState) -> None:
        """Take over a state of any engine and any number of ranks.

        Raises:
            TrainingError: The state belongs to other features, tables or another hash spec, or does
                not hold all rows.
        """
        check_state(state, self.lowering)
        for group in self.table_groups():
            rows = state.tables[group.group.table.name].slice(0, group.group.table.rows)
            group.weight.copy_(rows.weight)
            group.momentum.copy_(rows.momentum)
