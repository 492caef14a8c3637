"""A table cut by columns: every process holds some numbers of all rows.

TorchRec's own ``column_wise`` keeps an Adagrad sum per cut, so what is trained depends on the
number of processes (see docs/training.md). Here the sum over a whole row is exchanged, a number for
each row in use: rows and sums are those of one process, and open under every other cut.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from muxrec.tables.addressing import Found, RowBags, addressing
from muxrec.tables.bags import Bags
from muxrec.tables.exchange import swap_columns
from muxrec.tables.held import sparse_gradient
from muxrec.tables.lowering import Group
from muxrec.tables.optimizer import mean_squares, update_rows
from muxrec.tables.plan import column_cuts
from muxrec.tables.processes import gather_counts, gather_uneven, this_rank, world_size
from muxrec.tables.reads import split_reads
from muxrec.tables.state import TableRows
from muxrec_kernels.multiplexed_lookup import pooled_lookup


class ColumnTable(nn.Module):
    """This process's columns of a table of floating-point rows.

    A batch's bags go to every process, each sums its columns of them, and the sums come back:
    bytes sent per process are ``8 * ids`` and ``4 * width`` per bag.

    Args:
        group: What is read.
        poolings: Pooling of each feature.
        rows: Initial rows of these columns, float32 ``[R, c]``; kept, not copied.
    """

    momentum: Tensor

    def __init__(self, group: Group, poolings: Mapping[str, str], rows: Tensor) -> None:
        super().__init__()
        self.group, self.features = group, group.features
        self.poolings = dict(poolings)
        self.cuts = column_cuts(group.table.width, world_size())
        self.weight = nn.Parameter(rows)
        self.address = addressing(group)
        self.register_buffer("momentum", rows.new_zeros(rows.shape[0]), persistent=False)
        self.updates = torch.zeros(1, dtype=torch.int64)

    def forward(
        self, sparse: Mapping[str, Bags], found: Mapping[str, Found], size: int
    ) -> dict[str, Tensor]:
        """Each feature's reads; all processes have the same number of bags."""
        sums = self._sums(self.address(sparse, found, size))
        return split_reads(self.group, self.poolings, sums, found)

    def _sums(self, bags: RowBags) -> Tensor:
        every = gather_bags(bags)
        mine = pooled_lookup(self.weight, every.rows, every.offsets, weights=every.weights)
        return swap_columns(mine, [right - left for left, right in self.cuts])

    @torch.no_grad()
    def gather(self, rows: Tensor) -> Tensor:
        """Rows ``[..., d]`` by number; all processes ask for equally many."""
        flat = rows.flatten()
        offsets = torch.arange(flat.numel() + 1, device=flat.device)
        return self._sums(RowBags(flat, offsets)).view(*rows.shape, -1)

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """One update of the rows that have a gradient in any process.

        Raises:
            TypeError: The gradient is dense: a table of full size was built somewhere.
        """
        # Every process has read all bags: all see the same rows here.
        rows, values = sparse_gradient(self.weight)
        self.clear()
        if not rows.numel():
            return
        values = values / world_size()
        squares = mean_squares(values, width=self.group.table.width)
        dist.all_reduce(squares)
        rule = self.group.table.optimizer
        self.updates += 1
        age = int(self.updates)
        update_rows(
            *(self.weight, self.momentum, rows, values),
            lr=lr,
            squares=squares,
            rule=rule,
            updates=age,
        )

    def clear(self) -> None:
        """Drop the gradient."""
        self.weight.grad = None

    def local(self) -> TableRows:
        """All rows, these columns of them."""
        table, left = self.group.table, self.cuts[this_rank()][0]
        return TableRows(
            table.rows,
            0,
            self.weight.detach(),
            self.momentum,
            left=left,
            of_width=table.width,
            updates=self.updates if table.optimizer == "rmsprop" else None,
        )

    @torch.no_grad()
    def load(self, rows: TableRows) -> None:
        """Take over these columns and the momentum of whole rows."""
        mine = self.local()
        mine.take(rows.slice_columns(mine.left, mine.right))


def gather_bags(bags: RowBags) -> RowBags:
    """The bags of all processes, one process after another; all have the same number of bags."""
    lengths = bags.offsets.diff()
    has_weights = max(gather_counts(int(bags.weights is not None), bags.rows.device))
    counts = gather_counts(bags.rows.shape[0], bags.rows.device)
    found = torch.cat(gather_uneven(lengths, [lengths.shape[0]] * world_size()))
    weights = None
    if has_weights:
        own = torch.ones_like(bags.rows, dtype=torch.float32)
        own = own if bags.weights is None else bags.weights.float()
        weights = torch.cat(gather_uneven(own, counts))
    offsets = torch.cat([found.new_zeros(1), found.cumsum(0)])
    return RowBags(torch.cat(gather_uneven(bags.rows, counts)), offsets, weights)
