"""Tables whose update happens inside backward, on whichever fused kernel holds the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from muxrec.tables.addressing import (
    Found,
    HashedRows,
    MappedRows,
    RowBags,
    addressing,
    join_rows,
)
from muxrec.tables.bags import Bags
from muxrec.tables.columns import ColumnTable
from muxrec.tables.exchange import largest
from muxrec.tables.features import Vectors, divide_bags
from muxrec.tables.held import HeldOptimizer, held_tables, hold
from muxrec.tables.initial import fill_initial, first_rows
from muxrec.tables.lowering import Group, Lowering
from muxrec.tables.plan import COLUMNS, column_cuts
from muxrec.tables.processes import this_rank, world_size
from muxrec.tables.state import TableRows, TableState, check_state, describe_reads


class Kernel(Protocol):
    """Sums of bags of rows over all reads, with the update inside backward."""

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags, float32 ``[B, sum of widths]``, in the lowering's order of reads."""
        ...

    def local_rows(self) -> dict[str, TableRows]:
        """The rows held by this process, as views that can be written to."""
        ...

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        ...


MakeKernel = Callable[[tuple[Group, ...]], nn.Module]


class FusedOptimizer:
    """The training loop's handle on optimisers of which most live inside backward."""

    def __init__(self, kernels: Sequence[Kernel], held: HeldOptimizer) -> None:
        self.kernels, self.held = kernels, held

    def step(self) -> None:
        """Update the tables held in plain torch; backward has updated the others."""
        self.held.step()

    def zero_grad(self) -> None:
        """Drop the gradients of the tables held in plain torch."""
        self.held.zero_grad()

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next backward on."""
        self.held.set_lr(lr)
        for kernel in self.kernels:
            kernel.set_lr(lr)


class FusedTables(nn.Module):
    """Feature embeddings on fused kernels; follows the same protocol as the reference.

    Every backward updates the rows that its forward read, so a forward that is not meant to train
    runs under ``torch.no_grad``. Tables in other storages than float32 rows are held in plain torch
    by every process alike.

    Args:
        lowering: What is read from where.
        make: Makes the kernel of some groups.
        seed: Seed of the initial rows.
        lr: Learning rate of the tables.
        held: Physical tables of float32 rows that several processes hold in plain torch too, and
            how: ``data_parallel`` or ``column_wise``.
    """

    def __init__(
        self,
        lowering: Lowering,
        make: MakeKernel,
        *,
        seed: int,
        lr: float,
        held: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.lowering, self.lr, self._kinds = lowering, lr, dict(held or {})
        fused = [group for group in lowering.groups if self._is_fused(group)]
        pooled = tuple(group for group in fused if not group.is_per_id)
        alone = tuple(group for group in fused if group.is_per_id)
        self.parts = nn.ModuleList(FusedPart(some, make(some)) for some in (pooled, alone) if some)
        self.held = nn.ModuleList(
            self._hold(group, seed) for group in lowering.groups if not self._is_fused(group)
        )
        self.vectors = Vectors(lowering)
        self._is_simple = self.vectors.is_plain and not alone and not len(self.held)
        self._fill(seed)

    def _is_fused(self, group: Group) -> bool:
        return group.table.is_fused and group.table.name not in self._kinds

    def _hold(self, group: Group, seed: int) -> nn.Module:
        if self._kinds.get(group.table.name) == COLUMNS:
            left, right = column_cuts(group.table.width, world_size())[this_rank()]
            rows = first_rows(self.lowering, group, seed, left=left, right=right)
            return ColumnTable(group, self.lowering.poolings, rows)
        return hold(group, self.lowering.poolings, first_rows(self.lowering, group, seed))

    @torch.no_grad()
    def _fill(self, seed: int) -> None:
        held = self._fused_rows()
        for group in filter(self._is_fused, self.lowering.groups):
            rows, values = held[group.table.name], self.lowering.values.get(group.table.name)
            if values is None:
                fill_initial(rows.weight, group.table, seed, start=rows.start, left=rows.left)
            else:
                rows.weight.copy_(values[rows.start : rows.stop, rows.left : rows.right])

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        return self.lowering.widths

    def forward(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Feature name -> vectors, float32 ``[B, width]``; zeros where a bag has no (known) id.

        Raises:
            KeyError: A feature is missing from ``sparse``.
            ValueError: The features have different numbers of bags.
        """
        found = self.vectors.find(sparse)
        size = self._size(found)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vectors.rows_kept):
            parts = self._read(sparse, found, size)
        if self._is_simple and sum(map(len, parts)) == len(self.vectors.names):
            merged = {name: rows for part in parts for name, rows in part.items()}
            return {name: merged[name] for name in self.vectors.names}
        return self.vectors(self._in_order(parts), found)

    def _read(
        self, sparse: Mapping[str, Bags], found: Mapping[str, Found], size: int
    ) -> list[dict[str, Tensor]]:
        """Each table's reads: those of the kernels first."""
        poolings = self.vectors.poolings
        fused = (cast(FusedPart, part)(sparse, found, size, poolings) for part in self.parts)
        held = (table(sparse, found, size) for table in held_tables(self.held))
        return [*(each for part in fused for each in part), *held]

    def _size(self, found: Mapping[str, Found]) -> int:
        """Bags of single ids; the ranks exchange equal numbers of them."""
        if not self.vectors.per_id:
            return 0
        most = self.vectors.most_ids(found)
        return largest(most, next(iter(found.values())).ids.device)

    def _in_order(self, parts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Parts in the lowering's order of tables, which is the order of a feature's reads."""
        order = [
            *(group.table.name for part in self.parts for group in cast(FusedPart, part).groups),
            *(table.group.table.name for table in held_tables(self.held)),
        ]
        by_name = dict(zip(order, parts, strict=True))
        return [by_name[group.table.name] for group in self.lowering.groups]

    def table_optimizer(self) -> FusedOptimizer:
        """A handle that sets the learning rate; fused rows are updated inside backward."""
        kernels = [cast(FusedPart, part).held_by for part in self.parts]
        return FusedOptimizer(kernels, HeldOptimizer(held_tables(self.held), lr=self.lr))

    def _fused_rows(self) -> dict[str, TableRows]:
        return {
            name: rows
            for part in self.parts
            for name, rows in cast(FusedPart, part).held_by.local_rows().items()
        }

    def local_tables(self) -> dict[str, TableRows]:
        """The rows held here, as views that can be written to."""
        held = {table.group.table.name: table.local() for table in held_tables(self.held)}
        return {**self._fused_rows(), **held}

    def row_ranges(self) -> dict[str, tuple[int, ...]]:
        """First row and one past the last held by this process, of every physical table.

        Where it holds some columns of them only, the first column and one past the last too.
        """
        return {name: rows.range for name, rows in self.local_tables().items()}

    def export_state(self) -> TableState:
        """A copy of the rows held by this process and their optimiser state, on the CPU."""
        tables = {name: rows.copied() for name, rows in self.local_tables().items()}
        return TableState(describe_reads(self.lowering), tables)

    def view_state(self) -> TableState:
        """The same as views, which the next update changes: no copy of the rows is made."""
        return TableState(describe_reads(self.lowering), self.local_tables())

    @torch.no_grad()
    def load_table_state(self, state: TableState) -> None:
        """Take over the rows that this process holds from a state of any engine.

        Raises:
            TrainingError: The state belongs to other features, tables or another hash spec, or does
                not hold all of these rows.
        """
        check_state(state, self.lowering)
        for name, held in self._fused_rows().items():
            if held.stop > held.start:
                rows = state.tables[name].slice(held.start, held.stop)
                rows = rows.slice_columns(held.left, held.right)
                held.weight.copy_(rows.weight)
                held.momentum.copy_(rows.momentum)
        for table in held_tables(self.held):
            physical = table.group.table
            table.load(state.tables[physical.name].slice(0, physical.rows))


class FusedPart(nn.Module):
    """Physical tables that one kernel holds, with their addresses.

    Args:
        groups: The tables, all pooled or all per id.
        kernel: What holds the rows.
    """

    def __init__(self, groups: tuple[Group, ...], kernel: nn.Module) -> None:
        super().__init__()
        self.groups, self.kernel = groups, kernel
        self.addresses = nn.ModuleList(addressing(group) for group in groups)
        self._chunks = [width for group in groups for width in group.chunks]
        self._names = [name for group in groups for name in group.features]
        # Where reads drop ids, a bag of several ids may hold one row and is divided all the same.
        self._drops = any(read.address.drops for group in groups for read in group.reads)

    @property
    def held_by(self) -> Kernel:
        """The kernel as what it is."""
        return cast(Kernel, self.kernel)

    def forward(
        self,
        sparse: Mapping[str, Bags],
        found: Mapping[str, Found],
        size: int,
        poolings: Mapping[str, str],
    ) -> list[dict[str, Tensor]]:
        """Per table, each feature's reads: pooled, or of single ids."""
        bags = join_rows(
            [
                cast("HashedRows | MappedRows", address)(sparse, found, size)
                for address in self.addresses
            ]
        )
        parts: Sequence[Tensor] = self.held_by.sums(bags).split(self._chunks, dim=1)
        if not self.groups[0].is_per_id and (self._drops or _has_long_bag(bags)):
            named = zip(self._names, parts, strict=True)
            parts = [divide_bags(part, found[name], poolings[name]) for name, part in named]
        at = iter(parts)
        return [{name: next(at) for name in group.features} for group in self.groups]


def _has_long_bag(bags: RowBags) -> bool:
    """Whether some bag may hold two rows or a weight; others are the same under every pooling.

    Looking would wait for a GPU, where dividing is cheap, so only the CPU looks.
    """
    if bags.offsets.device.type != "cpu" or bags.weights is not None:
        return True
    own = bags.offsets.numpy()
    return bool((own[1:] - own[:-1]).max(initial=0) > 1)
