"""The one door to tables: declarations in, a module of the wanted engine out."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Set
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from muxrec.errors import MissingExtraError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary
from muxrec.tables.bags import Bags
from muxrec.tables.budget import solve_budgets
from muxrec.tables.features import Vectors
from muxrec.tables.fused import FusedTables, MakeKernel
from muxrec.tables.lowering import Lowering, Place, lower
from muxrec.tables.optimizer import TableOptimizer
from muxrec.tables.plan import HELD, Cluster, settle, sharding_plan, this_cluster
from muxrec.tables.rank_memory import log_memory
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.state import TableRows, TableState

logger = logging.getLogger("muxrec.tables")

Engine = Literal["auto", "torchrec", "reference"]


class Tables(Protocol):
    """What every engine's module offers; see :class:`muxrec.tables.reference.ReferenceTables`."""

    lowering: Lowering
    vectors: Vectors

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

    def local_tables(self) -> dict[str, TableRows]:
        """The rows held here, as views that can be written to."""
        ...

    def row_ranges(self) -> dict[str, tuple[int, ...]]:
        """Rows of every physical table that this process holds; see ``convert.RowRanges``."""
        ...

    def export_state(self) -> TableState:
        """A copy of the rows held here, with their optimiser state."""
        ...

    def view_state(self) -> TableState:
        """The same as views, which the next update changes."""
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
    places: Mapping[str, Place] | None = None,
) -> nn.Module:
    """Tables of the sparse ``features``; the same numbers whichever engine runs them.

    Where ``torch.distributed`` is initialised with two or more processes the torchrec engine shards
    the tables over them.

    Args:
        features: Declared features; dense ones are left aside.
        tables: Declared tables; those that no feature reads are left aside, and budgets are
            turned into sizes.
        vocabularies: Feature name -> known ids, for features on full tables.
        engine: ``torchrec``, ``reference``, or ``auto``: torchrec where it is installed; the choice
            is logged.
        seed: Seed of the initial rows.
        lr: Learning rate of the tables' row-wise Adagrad.
        device: Where the tables live.
        places: Table name -> where its training is, for stages after the first.

    Returns:
        A module that follows :class:`Tables`.

    Raises:
        RecipeError: A vocabulary that a table needs is not given, or a budget cannot be met.
        MissingExtraError: ``torchrec`` was asked for and is not installed.
    """
    # Later stages solve the same budgets again.
    sized = solve_budgets(features, tables, vocabularies, is_logged=not places)
    lowering = lower(features, sized, vocabularies, places=places, seed=seed)
    return tables_of(
        lowering, engine=engine, seed=seed, lr=lr, device=device, is_announced=not places
    )


def tables_of(
    lowering: Lowering,
    *,
    engine: Engine = "auto",
    seed: int = 0,
    lr: float = 0.05,
    device: torch.device | str = "cpu",
    is_announced: bool = False,
) -> nn.Module:
    """Tables of a lowering; see :func:`build_tables`. If announced, their memory is logged."""
    picked = _pick(engine, lowering)
    logger.info("tables engine=%s asked=%s device=%s", picked, engine, device)
    if picked == "reference":
        if is_announced:
            log_memory(lowering, sharding_plan(lowering), Cluster(), is_aligned=False)
        return ReferenceTables(lowering, seed=seed, lr=lr).to(device)
    where = torch.device(device)
    cluster = this_cluster(where.type)
    plan = settle(lowering, sharding_plan(lowering), cluster)
    if is_announced:
        log_memory(lowering, plan, cluster)
    own = {name for name, how in plan.items() if how in HELD and cluster.world_size > 1}
    make = _kernels(lowering, plan, cluster, own, lr=lr, device=where)
    held = {name: plan[name] for name in own}
    return FusedTables(lowering, make, seed=seed, lr=lr, held=held).to(where)


def _kernels(
    lowering: Lowering,
    plan: Mapping[str, str],
    cluster: Cluster,
    own: Set[str],
    *,
    lr: float,
    device: torch.device,
) -> MakeKernel:
    """What makes the fused kernels, with all tables of several processes placed at once."""
    from muxrec.tables.placement import place
    from muxrec.tables.sharded import make_kernel

    shared = [group for group in lowering.groups if group.table.name not in own]
    shared = [group for group in shared if group.table.is_fused]
    is_alone = cluster.world_size == 1 or not shared
    placed = {} if is_alone else place(shared, plan, cluster)
    return partial(make_kernel, lr=lr, device=device, placed=placed)


def has_torchrec() -> bool:
    """Whether torchrec and its kernels are installed."""
    return all(importlib.util.find_spec(name) for name in ("torchrec", "fbgemm_gpu"))


def _pick(engine: Engine, lowering: Lowering) -> Engine:
    if engine == "auto":
        return "torchrec" if has_torchrec() and lowering.groups else "reference"
    if engine == "torchrec" and not has_torchrec():
        raise MissingExtraError(
            "engine torchrec needs the packages torchrec and fbgemm-gpu: install the extras train "
            "and cpu (or gpu), or set train.engine to reference"
        )
    return engine
