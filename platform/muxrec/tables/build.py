"""The one door to tables: declarations in, a module of the wanted engine out."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from muxrec.errors import MissingExtraError, RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.fused import FusedTables, check_widths
from muxrec.tables.lowering import Lowering, lower
from muxrec.tables.optimizer import TableOptimizer
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.state import TableState

logger = logging.getLogger("muxrec.tables")

Engine = Literal["auto", "torchrec", "reference"]
Sharding = Literal["row_wise", "table_wise"]


class Tables(Protocol):
    """What every engine's module offers; see :class:`muxrec.tables.reference.ReferenceTables`."""

    @property
    def widths(self) -> dict[str, int]:
        """Width of each feature's vector."""
        ...

    def __call__(self, sparse: Mapping[str, Bags]) -> dict[str, Tensor]:
        """Feature name -> vectors, float32 ``[B, width]``."""
        ...

    def table_optimizer(self) -> TableOptimizer:
        """What applies the tables' gradients."""
        ...

    def row_ranges(self) -> dict[str, tuple[int, int]]:
        """Rows of every physical table that this process holds."""
        ...

    def export_state(self) -> TableState:
        """A copy of the rows held here, with their optimiser state."""
        ...

    def load_table_state(self, state: TableState) -> None:
        """Take over rows and optimiser state."""
        ...


def build_tables(
    features: tuple[FeatureSpec, ...],
    tables: tuple[TableSpec, ...],
    *,
    vocabularies: Mapping[str, Vocabulary],
    engine: Engine = "auto",
    seed: int = 0,
    lr: float = 0.05,
    device: torch.device | str = "cpu",
    sharding: Mapping[str, Sharding] | None = None,
) -> nn.Module:
    """Tables of the sparse ``features``; the same numbers whichever engine runs them.

    Where ``torch.distributed`` is initialised with two or more processes the torchrec engine shards
    the tables over them.

    Args:
        features: Declared features; dense ones are left aside.
        tables: Declared tables; those that no feature reads are left aside.
        vocabularies: Feature name -> known ids, for features on full tables.
        engine: ``torchrec``, ``reference``, or ``auto``: torchrec where it is installed and can
            hold the tables' widths; the choice is logged.
        seed: Seed of the initial rows.
        lr: Learning rate of the tables' row-wise Adagrad.
        device: Where the tables live.
        sharding: Table name -> how it is cut over processes; the default is ``row_wise`` for hashed
            and unified tables and ``table_wise`` for full ones.

    Returns:
        A module that follows :class:`Tables`.

    Raises:
        RecipeError: A full table's vocabulary is not given.
        MissingExtraError: ``torchrec`` was asked for and is not installed.
        TrainingError: ``torchrec`` was asked for and cannot hold a table's width.
    """
    lowering = lower(features, tables, vocabularies)
    picked = _pick(engine, lowering)
    logger.info("tables engine=%s asked=%s device=%s", picked, engine, device)
    if picked == "reference":
        return ReferenceTables(lowering, seed=seed, lr=lr).to(device)
    check_widths(lowering)
    from muxrec.tables.sharded import make_kernel

    where, plan = torch.device(device), sharding_plan(lowering, sharding or {})
    kernel = make_kernel(lowering, lr=lr, device=where, sharding=plan)
    return FusedTables(lowering, kernel, seed=seed).to(where)


def sharding_plan(lowering: Lowering, wanted: Mapping[str, Sharding]) -> dict[str, str]:
    """How every physical table is cut: as ``wanted``, else by its method's default.

    A hashed table's rows are hit evenly, so equal ranges of rows are equal work; a full table's
    rows are not, and it is small.
    """
    methods = {table.name: table.method for table in lowering.tables}
    defaults = {
        group.table.name: "table_wise" if methods.get(group.table.name) == "full" else "row_wise"
        for group in lowering.groups
    }
    if unknown := sorted(set(wanted) - set(defaults)):
        raise RecipeError(f"sharding: {unknown[0]} is no table (known: {', '.join(defaults)})")
    return {**defaults, **wanted}


def has_torchrec() -> bool:
    """Whether torchrec and its kernels are installed."""
    return all(importlib.util.find_spec(name) for name in ("torchrec", "fbgemm_gpu"))


def _pick(engine: Engine, lowering: Lowering) -> Engine:
    if engine == "auto":
        fits = all(group.table.width % 4 == 0 for group in lowering.groups)
        return "torchrec" if has_torchrec() and lowering.groups and fits else "reference"
    if engine == "torchrec" and not has_torchrec():
        raise MissingExtraError(
            "engine torchrec needs the packages torchrec and fbgemm-gpu: install the extras train "
            "and cpu (or gpu), or set train.engine to reference"
        )
    return engine
