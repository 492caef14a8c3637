"""Physical tables held by this process in plain torch, one class per storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.tables.addressing import Found, HashedRows, addressing, join_features
from muxrec.tables.alpt import AlptTable
from muxrec.tables.bags import Bags
from muxrec.tables.exchange import gather_gradients
from muxrec.tables.features import divide_bags
from muxrec.tables.integer import IntegerTable
from muxrec.tables.lowering import Group
from muxrec.tables.optimizer import DECAY, EPS, update_rows
from muxrec.tables.processes import world_size
from muxrec.tables.reads import split_reads
from muxrec.tables.rows import ROW_FORMATS, ServedRows
from muxrec.tables.state import TableRows
from muxrec_kernels.dispatch import Backend, choose_backend
from muxrec_kernels.multiplexed_lookup import multiplexed_lookup, pooled_lookup
from muxrec_kernels.row_update import RowState, Rule
from muxrec_kernels.row_update.deferred import DeferredLookup


class HeldTable(Protocol):
    """A physical table that this process holds whole, with its own update."""

    group: Group

    def __call__(
        self, sparse: Mapping[str, Bags], found: Mapping[str, Found], size: int
    ) -> dict[str, Tensor]:
        """Each feature's reads: pooled ``[B, P * d]``, or ``[size, P * d]`` of single ids."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Rows ``[..., d]`` by number, without gradient bookkeeping."""
        ...

    def update(self, lr: float) -> None:
        """Apply the gradient of the last backward and drop it."""
        ...

    def clear(self) -> None:
        """Drop the gradient."""
        ...

    def local(self) -> TableRows:
        """All rows, as views that can be written to."""
        ...

    def load(self, rows: TableRows) -> None:
        """Take over rows."""
        ...

    def served(self) -> ServedRows:
        """The rows in the format that they are served in, an ``nn.Module``.

        Raises:
            ValueError: The format cannot hold them.
        """
        ...

    @property
    def is_served_exactly(self) -> bool:
        """Whether the served rows are the trained ones."""
        ...


class TableGroup(nn.Module):
    """A table of floating-point rows under any rule of ``optimizer.RULES``.

    Where several processes train together each holds the whole table, and an update applies the
    mean of all processes' gradients, so the copies stay equal. They exchange the rows in use. (This
    is ``data_parallel``; TorchRec's own makes a gradient of the table's size in every process, see
    docs/training.md.)

    On a GPU and in one process, hashed tables make no gradient of rows either: the update reads the
    gradient of the lookup's output. A hook on ``weight`` brings its gradient back.

    Args:
        group: What is read.
        poolings: Pooling of each feature.
        rows: Initial rows, float32 ``[R, d]``; kept, not copied.
    """

    momentum: Tensor

    def __init__(self, group: Group, poolings: Mapping[str, str], rows: Tensor) -> None:
        super().__init__()
        self.group, self.features = group, group.features
        self.poolings = dict(poolings)
        self.weight = nn.Parameter(rows)
        self.address = addressing(group)
        self.register_buffer("momentum", rows.new_zeros(rows.shape[0]), persistent=False)
        self.updates = torch.zeros(1, dtype=torch.int64)
        self.deferred = DeferredLookup()

    def forward(
        self, sparse: Mapping[str, Bags], found: Mapping[str, Found], size: int
    ) -> dict[str, Tensor]:
        """Each feature's reads."""
        if isinstance(self.address, HashedRows):
            return self._multiplexed(self.address, sparse, found)
        bags = self.address(sparse, found, size)
        sums = pooled_lookup(self.weight, bags.rows, bags.offsets, weights=bags.weights)
        return split_reads(self.group, self.poolings, sums, found)

    def _multiplexed(
        self, address: HashedRows, sparse: Mapping[str, Bags], found: Mapping[str, Found]
    ) -> dict[str, Tensor]:
        """Hash, gather and pool in one call, which a GPU runs as one kernel."""
        names = self.features
        bags = join_features(sparse, names)
        # The kernel divides by lengths, so weighted bags are divided afterwards.
        alike = len({self.poolings[n] for n in names}) == 1 and bags.weights is None
        look_up = self.deferred if self._defers() else multiplexed_lookup
        pooled = look_up(
            self.weight,
            bags.ids,
            bags.offsets,
            address.slot_features,
            address.seeds,
            batch_size=bags.batch_size,
            weights=bags.weights,
            pooling=self.poolings[names[0]] if alike else "sum",
        )
        parts = dict(zip(names, pooled.split(self.group.chunks, dim=1), strict=True))
        if alike:
            return parts
        return {n: divide_bags(part, found[n], self.poolings[n]) for n, part in parts.items()}

    def _defers(self) -> bool:
        """Whether nothing but the next update reads the gradient, and a kernel makes that."""
        weight = self.weight
        return (
            choose_backend(weight.device) is Backend.TRITON
            and torch.is_grad_enabled()
            and world_size() == 1
            and not (weight._backward_hooks or weight._post_accumulate_grad_hooks)
        )

    def gather(self, rows: Tensor) -> Tensor:
        """Rows by number."""
        return F.embedding(rows, self.weight)

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """One update of the rows that have a gradient in any process.

        Raises:
            TypeError: The gradient is dense: a table of full size was built somewhere.
        """
        rule = self.group.table.optimizer
        if self.deferred.is_waiting and self.weight.grad is None:
            self.updates += 1
            state = RowState(self.momentum)
            kept = Rule(rule, lr, eps=EPS, decay=DECAY, step=int(self.updates))
            self.deferred.update(self.weight.detach(), state, kept)
            return
        self.deferred.settle(self.weight)
        rows, values = gather_gradients(*sparse_gradient(self.weight))
        self.clear()
        if rows.numel():
            self.updates += 1
            age = int(self.updates)
            update_rows(self.weight, self.momentum, rows, values, lr=lr, rule=rule, updates=age)

    def clear(self) -> None:
        """Drop the gradient."""
        self.deferred.clear()
        self.weight.grad = None

    def local(self) -> TableRows:
        """All rows."""
        is_copy = world_size() > 1
        rows, weight = self.group.table.rows, self.weight.detach()
        updates = self.updates if self.group.table.optimizer == "rmsprop" else None
        return TableRows(rows, 0, weight, self.momentum, updates=updates, is_replicated=is_copy)

    @torch.no_grad()
    def load(self, rows: TableRows) -> None:
        """Take over rows and momentum."""
        self.local().take(rows)

    def served(self) -> ServedRows:
        """The rows in their format."""
        table = self.group.table
        return ROW_FORMATS[table.serve].of(self.weight.detach(), group=table.serve_group)

    @property
    def is_served_exactly(self) -> bool:
        """Whether the format loses nothing."""
        return ROW_FORMATS[self.group.table.serve].is_exact


def sparse_gradient(weight: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Rows of a table with a gradient, rising, int64 ``[U]``, and their gradients ``[U, d]``.

    Both are empty where the table has no gradient.

    Raises:
        TypeError: The gradient is dense: a table of full size was built somewhere.
    """
    gradient = weight.grad
    if gradient is None:
        rows = torch.empty(0, dtype=torch.int64, device=weight.device)
        return rows, weight.detach().new_empty(0, weight.shape[1])
    if not gradient.is_sparse:
        raise TypeError("a table got a dense gradient: look rows up through the tables")
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()


class HeldOptimizer:
    """The training loop's handle on tables that this process holds."""

    def __init__(self, tables: Sequence[HeldTable], *, lr: float) -> None:
        self.tables, self.lr = list(tables), lr

    def step(self) -> None:
        """Apply and drop the gradients."""
        for table in self.tables:
            table.update(self.lr)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for table in self.tables:
            table.clear()

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next step on."""
        self.lr = lr


STORAGES: dict[str, type[nn.Module]] = {
    "fp32": TableGroup,
    "int8": IntegerTable,
    "int16": IntegerTable,
    "alpt": AlptTable,
}


def hold(group: Group, poolings: Mapping[str, str], rows: Tensor) -> nn.Module:
    """The table of ``group`` in its storage, a :class:`HeldTable`, from float32 rows."""
    return STORAGES[group.table.storage](group, poolings, rows)


def held_tables(modules: nn.ModuleList) -> list[HeldTable]:
    """The modules as what they are."""
    return [cast(HeldTable, module) for module in modules]
