"""What a click training makes its model from, again at every stage of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from muxrec.bench.compression.model import ClickModel, Head, fresh_head
from muxrec.bench.compression.plans import Plan
from muxrec.tables.build import Engine, Tables, build_tables
from muxrec.tables.lowering import Place


@dataclass(frozen=True)
class Making:
    """Everything that decides a fresh model.

    Attributes:
        plan: Features and their table.
        head: Network over the vectors.
        engine: Engine of the tables.
        seed: Seed of rows, maps and head.
        table_lr: Learning rate of the tables.
    """

    plan: Plan
    head: Head
    engine: Engine
    seed: int
    table_lr: float

    def tables(self, places: Mapping[str, Place] | None = None) -> nn.Module:
        """The tables where ``places`` say their training is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build_tables(
                self.plan.features,
                (self.plan.table,),
                vocabularies=self.plan.vocabularies,
                engine=self.engine,
                seed=self.seed,
                lr=self.table_lr,
                places=places,
            )

    def model(self, places: Mapping[str, Place] | None = None) -> ClickModel:
        """A model with a fresh head."""
        tables = self.tables(places)
        width = sum(cast(Tables, tables).widths.values())
        return ClickModel(tables, fresh_head(self.head, width, seed=self.seed))
