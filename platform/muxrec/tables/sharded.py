"""Tables on TorchRec's fused kernels: the one module that trains with torchrec and fbgemm.

One process runs fbgemm's table-batched kernel itself, which is what TorchRec runs underneath; two
or more processes run TorchRec's ``DistributedModelParallel`` with an explicit plan. Every read is a
key ``feature#probe`` on its physical table, so a unified table is one array however many features
share it, and the update happens inside backward: no gradient of the table's size exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
    BoundsCheckMode,
    EmbeddingLocation,
    PoolingMode,
)
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, KeyedTensor
from torchrec.distributed import DistributedModelParallel, ShardingEnv
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.sharding_plan import (
    ParameterShardingGenerator,
    construct_module_sharding_plan,
    row_wise,
    table_wise,
)
from torchrec.distributed.types import ModuleSharder, ShardingPlan
from torchrec.modules.embedding_configs import PoolingType

from muxrec.tables.addressing import RowBags
from muxrec.tables.lowering import Group
from muxrec.tables.methods.protocol import Read
from muxrec.tables.optimizer import EPS, aligned_width
from muxrec.tables.state import TableRows

FUSED = "fused"
"""TorchRec's compute kernel; a plan that leaves it out falls back to dense gradients on the CPU."""


class OneProcess(nn.Module):
    """fbgemm's table-batched kernel over some physical tables."""

    def __init__(self, groups: Sequence[Group], *, lr: float, device: torch.device) -> None:
        super().__init__()
        self.tables = [group.table for group in groups]
        self.cut = PaddedReads(groups)
        on_gpu = device.type == "cuda"
        place = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
        compute = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
        self.kernel = SplitTableBatchedEmbeddingBagsCodegen(
            [(t.rows, aligned_width(t.width), place, compute) for t in self.tables],
            feature_table_map=[at for at, group in enumerate(groups) for _ in group.reads],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=lr,
            eps=EPS,
            pooling_mode=PoolingMode.SUM,
            # Rows come from the lowering, which cannot leave [0, rows).
            bounds_check_mode=BoundsCheckMode.NONE,
            device=device,
        )

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags."""
        return self.cut(self.kernel(bags.rows, bags.offsets, bags.weights))

    def local_rows(self) -> dict[str, TableRows]:
        """All rows."""
        weights = self.kernel.split_embedding_weights()
        momenta = [state["sum"] for state in self.kernel.get_optimizer_state()]
        return {
            table.name: TableRows(table.rows, 0, weight.detach()[:, : table.width], momentum)
            for table, weight, momentum in zip(self.tables, weights, momenta, strict=True)
        }

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        self.kernel.set_learning_rate(lr)


class ManyProcesses(nn.Module):
    """TorchRec's sharded collection over the default process group."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        lr: float,
        device: torch.device,
        sharding: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.groups = groups
        self.keys = [_key(group, read) for group in groups for read in group.reads]
        self.cut = PaddedReads(groups)
        collection = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=_module_name(group.table.name),
                    embedding_dim=aligned_width(group.table.width),
                    num_embeddings=group.table.rows,
                    feature_names=[_key(group, read) for read in group.reads],
                    pooling=PoolingType.SUM,
                )
                for group in groups
            ],
            device=torch.device("meta"),
        )
        optimizer = EmbOptimType.EXACT_ROWWISE_ADAGRAD
        sharder = cast(
            ModuleSharder[nn.Module],
            EmbeddingBagCollectionSharder(
                {"optimizer": optimizer, "learning_rate": lr, "eps": EPS}
            ),
        )
        plan = construct_module_sharding_plan(
            collection,
            {
                _module_name(group.table.name): _placement(sharding[group.table.name], at)
                for at, group in enumerate(groups)
            },
            sharder=sharder,
            local_size=dist.get_world_size(),
            world_size=dist.get_world_size(),
            device_type=device.type,
        )
        self.model = DistributedModelParallel(
            collection,
            env=ShardingEnv.from_process_group(cast(dist.ProcessGroup, dist.group.WORLD)),
            device=device,
            plan=ShardingPlan(plan={"": plan}),
            sharders=[sharder],
        )

    def sums(self, bags: RowBags) -> Tensor:
        """Summed bags; the gradient that comes back is divided by the number of processes."""
        keyed = KeyedJaggedTensor(
            keys=self.keys, values=bags.rows, offsets=bags.offsets, weights=bags.weights
        )
        found = cast(KeyedTensor, self.model(keyed).wait())
        if found.keys() == self.keys:
            return self.cut(found.values())
        return self.cut(torch.cat([found[key] for key in self.keys], dim=1))

    def local_rows(self) -> dict[str, TableRows]:
        """This rank's shard of every table; no rows where another rank holds the whole table."""
        weights = self.model.state_dict()
        state = self.model.fused_optimizer.state_dict()["state"]
        found = {}
        for group in self.groups:
            table, name = group.table, _module_name(group.table.name)
            key = f"embedding_bags.{name}.weight"
            shards = [shard for shard in weights[key].local_shards() if shard.tensor.numel()]
            if shards:
                momentum = state[key][f"{name}.momentum1"].local_shards()[0].tensor
                start, weight = shards[0].metadata.shard_offsets[0], shards[0].tensor.detach()
                mine = weight[:, : table.width]
                found[table.name] = TableRows(table.rows, start, mine, momentum)
            else:
                empty = torch.empty(0, table.width)
                found[table.name] = TableRows(table.rows, 0, empty, torch.empty(0))
        return found

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        for group in self.model.fused_optimizer.param_groups:
            cast(dict[str, Any], group)["lr"] = lr
        # The fused optimiser hands its rate to the kernels here; the rows change in backward only.
        self.model.fused_optimizer.step()


def _module_name(table: str) -> str:
    """The table's name in torchrec's ModuleDict, which refuses ``items`` and names with dots."""
    return f"table_{table.encode().hex()}"


def _placement(how: str, at: int) -> ParameterShardingGenerator:
    if how == "row_wise":
        return row_wise(compute_kernel=FUSED)
    return table_wise(rank=at % dist.get_world_size(), compute_kernel=FUSED)


class PaddedReads(nn.Module):
    """Cuts off the numbers that fill rows up to a multiple of four.

    Their gradient is zero, so they stay what they are.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        widths = [group.table.width for group in groups for _ in group.reads]
        self.widths = [aligned_width(width) for width in widths]
        self.wanted = widths if widths != self.widths else None

    def forward(self, sums: Tensor) -> Tensor:
        """``[B, sum of aligned widths]`` to ``[B, sum of widths]``."""
        if self.wanted is None:
            return sums
        parts = zip(sums.split(self.widths, dim=1), self.wanted, strict=True)
        return torch.cat([part[:, :width] for part, width in parts], dim=1)


def _key(group: Group, read: Read) -> str:
    """A key of its own for every read: a feature may read several tables."""
    return f"{group.table.name}/{read.key}"


def make_kernel(
    groups: Sequence[Group],
    *,
    lr: float,
    device: torch.device,
    sharding: Mapping[str, str],
) -> OneProcess | ManyProcesses:
    """The kernel for this process, or for this rank where several processes train together.

    Args:
        groups: Physical tables and their reads, all pooled or all of single ids.
        lr: Learning rate of the tables.
        device: Where the tables live.
        sharding: Physical table name -> ``row_wise`` or ``table_wise``.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        return ManyProcesses(groups, lr=lr, device=device, sharding=sharding)
    return OneProcess(groups, lr=lr, device=device)
