"""What tables will take of every process's memory, said before any of it is taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from muxrec.log import event
from muxrec.tables.lowering import Group, Lowering
from muxrec.tables.memory import FP32_BYTES, stored_bytes, training_of
from muxrec.tables.plan import HELD, Cluster, Share, share_per_rank

logger = logging.getLogger("muxrec.tables")


@dataclass(frozen=True)
class TableMemory:
    """Bytes of one physical table in training, without gradients.

    Attributes:
        group: The table.
        sharding: How it is cut.
        weights: Bytes of all its rows in their storage.
        state: Bytes of the optimiser's number per row.
        ranks: Bytes of both that each process holds.
    """

    group: Group
    sharding: str
    weights: int
    state: int
    ranks: tuple[int, ...]


def memory_per_rank(
    lowering: Lowering, plan: Mapping[str, str], cluster: Cluster, *, is_aligned: bool = True
) -> list[TableMemory]:
    """Bytes of every physical table, in all and by process, from shapes alone.

    Args:
        lowering: What is read from where.
        plan: Output of ``plan.settle``.
        cluster: The processes.
        is_aligned: Whether float rows are filled up to a multiple of four numbers, as the torchrec
            engine does and the reference does not.
    """
    shares = share_per_rank(lowering, plan, cluster)
    found = []
    for group in lowering.groups:
        table = group.table
        is_torchrec = cluster.world_size == 1 or plan[table.name] not in HELD
        weights = stored_bytes(table, is_aligned=is_aligned and is_torchrec)
        held = tuple(_bytes_of(share, group, weights) for share in shares[table.name])
        state = FP32_BYTES * table.rows
        found.append(TableMemory(group, plan[table.name], weights, state, held))
    return found


def _bytes_of(share: Share, group: Group, weights: int) -> int:
    """A process's part of the rows' bytes, and a number of state for each row of which it holds."""
    rows, columns = share.stop - share.start, share.right - share.left
    return weights * rows * columns // (group.table.rows * group.table.width) + FP32_BYTES * rows


def log_memory(
    lowering: Lowering, plan: Mapping[str, str], cluster: Cluster, *, is_aligned: bool = True
) -> None:
    """One line per physical table and one for all of them; see :func:`memory_per_rank`."""
    tables = memory_per_rank(lowering, plan, cluster, is_aligned=is_aligned)
    for each in tables:
        table = each.group.table
        logger.info(
            event(
                "table_memory",
                table=table.name,
                rows=table.rows,
                width=table.width,
                storage=table.storage,
                sharding=each.sharding if cluster.world_size > 1 else "none",
                weight_bytes=each.weights,
                state_bytes=each.state,
                rank_bytes=",".join(map(str, each.ranks)),
            )
        )
    ranks = [sum(held) for held in zip(*(each.ranks for each in tables), strict=True)]
    total = training_of(lowering, is_aligned=is_aligned)
    logger.info(
        event(
            "tables_memory",
            tables=len(tables),
            weight_bytes=sum(each.weights for each in tables),
            state_bytes=sum(each.state for each in tables),
            map_bytes=total.maps + total.combine + total.combine_state,
            dictionary_bytes=total.dictionary,
            rank_bytes=",".join(map(str, ranks)) or "0",
        )
    )
