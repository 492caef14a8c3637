"""TorchRec's plan for tables that it shards: where every piece of every table lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torch.distributed._shard.sharding_spec import EnumerableShardingSpec
from torch.distributed.remote_device import _remote_device
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.sharding_plan import (
    ParameterShardingGenerator,
    calculate_shard_sizes_and_offsets,
    construct_module_sharding_plan,
    grid_shard,
    row_wise,
    table_row_wise,
    table_wise,
)
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ModuleSharder, ParameterSharding
from torchrec.modules.embedding_configs import PoolingType

from muxrec.errors import TrainingError
from muxrec.tables.lowering import Group
from muxrec.tables.methods.protocol import Read
from muxrec.tables.optimizer import EPS, aligned_width
from muxrec.tables.plan import NOTHING, Cluster, Share, owners

FUSED = "fused"
"""TorchRec's compute kernel; a plan that leaves it out falls back to dense gradients on the CPU."""
CHOICES = ("row_wise", "table_wise", "table_row_wise")
"""What the planner may choose from. Not by columns: TorchRec keeps an Adagrad sum per cut, and the
rows would depend on the number of processes. Not a copy each: its gradient is of the table's size.
"""

RESERVED = 0.15
"""Share of a GPU's memory that the planner leaves to everything but tables, TorchRec's default."""

Placed = Mapping[str, ParameterSharding]


def module_name(table: str) -> str:
    """The table's name in torchrec's ModuleDict, which refuses ``items`` and names with dots."""
    return f"table_{table.encode().hex()}"


def read_key(group: Group, read: Read) -> str:
    """A key of its own for every read: a feature may read several tables."""
    return f"{group.table.name}/{read.key}"


def collection_of(groups: Sequence[Group]) -> EmbeddingBagCollection:
    """TorchRec's module of the tables, without any rows yet."""
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=module_name(group.table.name),
                embedding_dim=aligned_width(group.table.width),
                num_embeddings=group.table.rows,
                feature_names=[read_key(group, read) for read in group.reads],
                pooling=PoolingType.SUM,
            )
            for group in groups
        ],
        device=torch.device("meta"),
    )


def sharder_of(lr: float) -> ModuleSharder[nn.Module]:
    """TorchRec's sharder with the fused optimiser."""
    fused = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": lr, "eps": EPS}
    return cast(ModuleSharder[nn.Module], EmbeddingBagCollectionSharder(fused))


def place(groups: Sequence[Group], plan: Mapping[str, str], cluster: Cluster) -> Placed:
    """Where every piece of the tables lies, by :func:`module_name`.

    Args:
        groups: All tables that TorchRec shards.
        plan: Physical table name -> kind.
        cluster: The processes.

    Raises:
        TrainingError: A grid needs more hosts than there are.
    """
    ranks = owners(groups, plan, cluster.world_size)
    chosen = {g.table.name for g in groups if plan[g.table.name] == "auto"}
    fixed = [group for group in groups if group.table.name not in chosen]
    found: dict[str, ParameterSharding] = {}
    if fixed:
        generators = {
            module_name(group.table.name): _generator(group, plan, ranks, at, cluster)
            for at, group in enumerate(fixed)
        }
        found.update(
            construct_module_sharding_plan(
                collection_of(fixed),
                generators,
                sharder=sharder_of(0.0),
                local_size=cluster.local_size,
                world_size=cluster.world_size,
                device_type=cluster.device,
            )
        )
    if chosen:
        planned = _planned(groups, plan, cluster)
        found.update({module_name(name): planned[module_name(name)] for name in chosen})
    return {name: replace(each, compute_kernel=FUSED) for name, each in found.items()}


def _generator(
    group: Group, plan: Mapping[str, str], ranks: Mapping[str, int], at: int, cluster: Cluster
) -> ParameterShardingGenerator:
    how = plan[group.table.name]
    if how == "row_wise":
        return row_wise(compute_kernel=FUSED)
    if how == "table_wise":
        return table_wise(rank=ranks[group.table.name], compute_kernel=FUSED)
    if how == "table_row_wise":
        return table_row_wise(host_index=at % cluster.hosts)
    return grid_shard([(at + cut) % cluster.hosts for cut in range(_grid_cuts(group, cluster))])


def _grid_cuts(group: Group, cluster: Cluster) -> int:
    """Ranges of columns that TorchRec cuts a grid's table into, each for a host."""
    table = torch.empty(group.table.rows, aligned_width(group.table.width), device="meta")
    sizes, _ = calculate_shard_sizes_and_offsets(
        table, cluster.world_size, cluster.local_size, "grid_shard"
    )
    cuts = len(sizes) // cluster.local_size
    if cuts > cluster.hosts:
        raise TrainingError(
            f"TorchRec's grid cuts the {group.table.width} columns of {group.table.name} for "
            f"{cuts} hosts, there are {cluster.hosts}: use table_row_wise"
        )
    return cuts


def _planned(
    groups: Sequence[Group], plan: Mapping[str, str], cluster: Cluster
) -> EmbeddingModuleShardingPlan:
    """What TorchRec's planner chooses, with the kinds that are given held fixed."""
    kinds = {"grid": ["grid_shard"], "auto": list(CHOICES)}
    has_gpu = torch.cuda.is_available()
    planner = EmbeddingShardingPlanner(
        topology=Topology(
            world_size=cluster.world_size,
            compute_device=cluster.device,
            local_world_size=cluster.local_size,
            hbm_cap=torch.cuda.get_device_properties().total_memory if has_gpu else None,
        ),
        storage_reservation=FixedPercentageStorageReservation(RESERVED),
        constraints={
            module_name(group.table.name): ParameterConstraints(
                sharding_types=kinds.get(plan[group.table.name], [plan[group.table.name]]),
                compute_kernels=[FUSED],
            )
            for group in groups
        },
    )
    module, sharders = collection_of(groups), [sharder_of(0.0)]
    if dist.is_initialized():
        whole = planner.collective_plan(module, sharders, dist.group.WORLD)
    else:
        whole = planner.plan(module, sharders)
    return cast(EmbeddingModuleShardingPlan, whole.plan[""])


def placed_shares(
    groups: Sequence[Group], placed: Placed, cluster: Cluster
) -> dict[str, list[Share]]:
    """What every process holds of every table of a plan."""
    found = {}
    for group in groups:
        shares = [NOTHING] * cluster.world_size
        sharding = placed[module_name(group.table.name)]
        for piece in cast(EnumerableShardingSpec, sharding.sharding_spec).shards:
            (start, left), (rows, columns) = piece.shard_offsets, piece.shard_sizes
            if rows:
                rank = cast(_remote_device, piece.placement).rank()
                right = min(left + columns, group.table.width)
                shares[cast(int, rank)] = Share(start, start + rows, left, right)
        found[group.table.name] = shares
    return found
