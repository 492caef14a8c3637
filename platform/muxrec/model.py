"""The item model: tables under a tower."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from muxrec.data.batch import ItemBatch
from muxrec.towers.output import TowerOutput
from muxrec.towers.tower import ItemTower


class ItemModel(nn.Module):
    """Items -> vectors.

    The parameters fall in two parts that are optimised, checkpointed and sharded apart: the tables,
    whose engine owns their state and often their optimiser, and the dense rest.

    Args:
        tables: From ``muxrec.tables.build_tables``; maps bags to looked-up rows.
        tower: The dense part.
    """

    def __init__(self, tables: nn.Module, tower: ItemTower) -> None:
        super().__init__()
        self.tables = tables
        self.tower = tower

    def forward(self, batch: ItemBatch) -> TowerOutput:
        """Vectors of the batch's B items; see ``TowerOutput``. An empty batch gives ``[0, D]``."""
        looked = self.tables(batch.sparse) if batch.sparse else {}
        return self.tower.forward_features(
            looked, batch.sparse_present, batch.dense, batch.dense_present
        )

    def dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the dense part."""
        return self.tower.named_parameters()
