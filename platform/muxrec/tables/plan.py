"""How tables are cut over processes, decided before anything is built.

========================  ========================================================================
row_wise                  equal ranges of rows; TorchRec's fused kernels
table_wise                a whole table on one process; TorchRec's fused kernels
column_wise               equal ranges of columns; :class:`muxrec.tables.columns.ColumnTable`
data_parallel             a copy in every process; :class:`muxrec.tables.held.TableGroup`
table_row_wise            rows over the GPUs of one host; TorchRec, CUDA only
grid                      columns over hosts, rows over their GPUs; TorchRec, CUDA only
auto                      TorchRec's planner chooses for every table, CUDA only
========================  ========================================================================

Tables in other storages than float32 rows are held by every process, whatever else is the default.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from muxrec.errors import TrainingError
from muxrec.log import event
from muxrec.spec.table_methods import METHOD_SPECS
from muxrec.tables.lowering import Group, Lowering
from muxrec.tables.optimizer import aligned_width
from muxrec.tables.processes import world_size

logger = logging.getLogger("muxrec.tables")

COPIED, COLUMNS = "data_parallel", "column_wise"
HELD = (COPIED, COLUMNS)
"""Kinds that this package runs itself; TorchRec runs the others."""
ON_CUDA = ("auto", "table_row_wise", "grid")
ON_CPU = ("row_wise", "table_wise", COLUMNS, COPIED)


class Share(NamedTuple):
    """The part of a physical table that one process holds.

    Attributes:
        start: First row.
        stop: One past the last row.
        left: First column.
        right: One past the last column.
    """

    start: int
    stop: int
    left: int
    right: int


NOTHING = Share(0, 0, 0, 0)


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        world_size: How many there are.
        local_size: How many on each host.
        device: Kind of device, ``cpu`` or ``cuda``.
    """

    world_size: int = 1
    local_size: int = 1
    device: str = "cpu"

    @property
    def hosts(self) -> int:
        """How many hosts there are."""
        return self.world_size // self.local_size


def this_cluster(device: str) -> Cluster:
    """The processes that ``torchrun`` started and that are connected now."""
    size = world_size()
    return Cluster(size, min(size, int(os.environ.get("LOCAL_WORLD_SIZE", size))), device)


def sharding_plan(lowering: Lowering) -> dict[str, str]:
    """How every physical table is cut: as its recipe says, else by its method's default.

    A hashed table's rows are hit evenly, so equal ranges of rows are equal work; a full table's
    rows are not, and it is small.
    """
    found = {}
    for group in lowering.groups:
        table = lowering.table_of(group.table.name).table
        default = "table_wise" if METHOD_SPECS[table.method].needs_vocabulary else "row_wise"
        if not group.table.is_fused:
            default = COPIED
        found[group.table.name] = table.sharding or default
    return found


def check_plan(lowering: Lowering, plan: Mapping[str, str], cluster: Cluster) -> None:
    """Refuse what these processes cannot do.

    Raises:
        TrainingError: A kind needs CUDA, a table has fewer columns than there are processes to
            share them, or a table whose rows are not float32 is to be cut.
    """
    if cluster.world_size == 1:
        return
    for group in lowering.groups:
        table, how = group.table, plan[group.table.name]
        where = f"tables.{lowering.table_of(table.name).table.name}.sharding is {how}"
        if how in ON_CUDA and cluster.device != "cuda":
            raise TrainingError(
                f"{where}, which TorchRec has for CUDA only, and this training runs on "
                f"{cluster.device}: use {', '.join(ON_CPU[:-1])} or {ON_CPU[-1]}, or leave it out"
            )
        if how not in (HELD if table.storage == "fp32" else (COPIED,)) and not table.is_fused:
            raise TrainingError(
                f"{where}, and the rows of {table.name} are held in plain torch by every "
                f"process: use {COPIED}, or leave it out"
            )
        if how == COLUMNS and table.width < cluster.world_size:
            raise TrainingError(
                f"{where}, and {table.name} has {table.width} columns for {cluster.world_size} "
                f"processes: use row_wise, or at most {table.width} processes"
            )


def settle(lowering: Lowering, plan: Mapping[str, str], cluster: Cluster) -> dict[str, str]:
    """The plan for these processes: a table with too few rows to cut lies whole on one of them.

    Where a process has no rows of the last table, fbgemm's CPU kernel reads past its arrays' end.

    Args:
        lowering: What is read from where.
        plan: Output of :func:`sharding_plan`.
        cluster: The processes.

    Raises:
        TrainingError: See :func:`check_plan`.
    """
    check_plan(lowering, plan, cluster)
    found = dict(plan)
    for table in (group.table for group in lowering.groups):
        start, stop = row_cuts(table.rows, cluster.world_size)[-1]
        if found[table.name] == "row_wise" and start == stop:
            found[table.name] = "table_wise"
            text = event("table_whole", table=table.name, rows=table.rows, asked="row_wise")
            logger.info(text)
    return found


def column_cuts(width: int, ranks: int) -> list[tuple[int, int]]:
    """First column of each process and one past its last; they differ by one column at most."""
    return [(width * at // ranks, width * (at + 1) // ranks) for at in range(ranks)]


def row_cuts(rows: int, ranks: int) -> list[tuple[int, int]]:
    """First row of each process and one past its last, cut as TorchRec cuts rows."""
    block = -(-rows // ranks)
    return [(min(rows, at * block), min(rows, (at + 1) * block)) for at in range(ranks)]


def owners(groups: Sequence[Group], plan: Mapping[str, str], ranks: int) -> dict[str, int]:
    """The process of each whole table: the largest first, to whoever holds fewest numbers."""
    whole = [group.table for group in groups if plan[group.table.name] == "table_wise"]
    held, found = [0] * ranks, {}
    for table in sorted(whole, key=lambda table: (-table.rows * table.width, table.name)):
        rank = held.index(min(held))
        held[rank] += table.rows * aligned_width(table.width)
        found[table.name] = rank
    return found


def share_per_rank(
    lowering: Lowering, plan: Mapping[str, str], cluster: Cluster
) -> dict[str, list[Share]]:
    """What every process will hold of every physical table, by its name.

    Args:
        lowering: What is read from where.
        plan: Output of :func:`settle`.
        cluster: The processes.
    """
    ranks = cluster.world_size
    found: dict[str, list[Share]] = {}
    torchrec = [g for g in lowering.groups if ranks > 1 and plan[g.table.name] not in HELD]
    for group in lowering.groups:
        rows, width = group.table.rows, group.table.width
        if ranks == 1 or plan[group.table.name] == COPIED:
            found[group.table.name] = [Share(0, rows, 0, width)] * ranks
        elif plan[group.table.name] == COLUMNS:
            cuts = column_cuts(width, ranks)
            found[group.table.name] = [Share(0, rows, left, right) for left, right in cuts]
    if torchrec:
        from muxrec.tables.placement import place, placed_shares

        found.update(placed_shares(torchrec, place(torchrec, plan, cluster), cluster))
    return {group.table.name: found[group.table.name] for group in lowering.groups}
