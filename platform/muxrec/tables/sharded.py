"""Tables on TorchRec's fused kernels: the one module that trains with torchrec and fbgemm.

One process runs fbgemm's table-batched kernel itself, which is what TorchRec runs underneath; two
or more processes run TorchRec's ``DistributedModelParallel`` with a plan that
:mod:`muxrec.tables.placement` makes. Every read is a
key ``feature#probe`` on its physical table, so a unified table is one array however many features
share it, and the update happens inside backward: no gradient of the table's size exists.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from torchrec import KeyedJaggedTensor, KeyedTensor
from torchrec.distributed import DistributedModelParallel, ShardingEnv
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingPlan

from muxrec.tables.addressing import RowBags
from muxrec.tables.lowering import Group
from muxrec.tables.optimizer import EPS, aligned_width
from muxrec.tables.placement import Placed, collection_of, module_name, read_key, sharder_of
from muxrec.tables.state import TableRows


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
        self, groups: Sequence[Group], *, lr: float, device: torch.device, placed: Placed
    ) -> None:
        super().__init__()
        self.groups, self.device = groups, device
        self.keys = [read_key(group, read) for group in groups for read in group.reads]
        self.cut = PaddedReads(groups)
        names = [module_name(group.table.name) for group in groups]
        plan = EmbeddingModuleShardingPlan({name: placed[name] for name in names})
        self.model = DistributedModelParallel(
            collection_of(groups),
            env=ShardingEnv.from_process_group(cast(dist.ProcessGroup, dist.group.WORLD)),
            device=device,
            plan=ShardingPlan(plan={"": plan}),
            sharders=[sharder_of(lr)],
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
        """This rank's piece of every table; no rows of a table that lies elsewhere."""
        weights = self.model.state_dict()
        state = self.model.fused_optimizer.state_dict()["state"]
        found = {}
        for group in self.groups:
            table, name = group.table, module_name(group.table.name)
            key = f"embedding_bags.{name}.weight"
            pieces = [piece for piece in weights[key].local_shards() if piece.tensor.numel()]
            if not pieces:
                empty = torch.empty(0, table.width, device=self.device)
                found[table.name] = TableRows(table.rows, 0, empty, empty.new_empty(0))
                continue
            # The plans here give a process one piece of a table at most.
            (start, left), weight = pieces[0].metadata.shard_offsets, pieces[0].tensor.detach()
            momentum = state[key][f"{name}.momentum1"].local_shards()[0].tensor
            mine, is_cut = weight[:, : table.width - left], weight.shape[1] < table.width
            width = table.width if is_cut else None
            found[table.name] = TableRows(
                table.rows, start, mine, momentum.view(-1), left=left, of_width=width
            )
        return found

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        for group in self.model.fused_optimizer.param_groups:
            cast(dict[str, Any], group)["lr"] = lr
        # The fused optimiser hands its rate to the kernels here; the rows change in backward only.
        self.model.fused_optimizer.step()


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


def make_kernel(
    groups: Sequence[Group], *, lr: float, device: torch.device, placed: Placed
) -> OneProcess | ManyProcesses:
    """The kernel for this process, or for this rank where several processes train together.

    Args:
        groups: Physical tables and their reads, all pooled or all of single ids.
        lr: Learning rate of the tables.
        device: Where the tables live.
        placed: Where TorchRec puts every table's pieces; empty for one process.
    """
    if placed:
        return ManyProcesses(groups, lr=lr, device=device, placed=placed)
    return OneProcess(groups, lr=lr, device=device)
