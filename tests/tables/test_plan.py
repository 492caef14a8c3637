"""Where tables go is decided without a process group, and refused in words where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.errors import TrainingError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables.build import has_torchrec
from muxrec.tables.lowering import Lowering, lower
from muxrec.tables.plan import (
    NOTHING,
    ON_CPU,
    ON_CUDA,
    Cluster,
    Share,
    column_cuts,
    row_cuts,
    settle,
    sharding_plan,
    share_per_rank,
)

needs_torchrec = pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed")
POD = Cluster(8, 4, "cuda")
ROWS, WIDTH = 1001, 256


def lowering(*kinds: str, rows: int = ROWS, width: int = WIDTH) -> Lowering:
    """A unified table for each kind."""
    features = tuple(FeatureSpec(f"f{at}", "id", ("x",), "id", table=f"t{at}") for at in range(9))
    tables = [
        TableSpec(f"t{at}", "unified", width, rows=rows, sharding=kind)
        for at, kind in enumerate(kinds)
    ]
    return lower(features[: len(kinds)], tuple(tables), {})


def shares(found: Lowering, cluster: Cluster) -> list[list[Share]]:
    plan = settle(found, sharding_plan(found), cluster)
    return list(share_per_rank(found, plan, cluster).values())


def cells(pieces: list[Share]) -> torch.Tensor:
    """How many processes hold every number of a table."""
    held = torch.zeros(ROWS, WIDTH, dtype=torch.int64)
    for start, stop, left, right in pieces:
        held[start:stop, left:right] += 1
    return held


@needs_torchrec
@pytest.mark.parametrize("kind", sorted({*ON_CPU, *ON_CUDA} - {"data_parallel"}))
def test_every_number_of_a_table_lies_on_one_gpu_of_eight(kind: str) -> None:
    (found,) = shares(lowering(kind), POD)
    assert len(found) == 8
    assert cells(found).eq(1).all()


@needs_torchrec
def test_tables_lie_on_the_gpus_that_their_kind_says() -> None:
    found = shares(lowering("table_row_wise", "table_row_wise", "grid", "data_parallel"), POD)
    first, second, grid, copies = found
    assert [piece == NOTHING for piece in first] == [False] * 4 + [True] * 4
    assert [piece == NOTHING for piece in second] == [True] * 4 + [False] * 4
    # Half of the columns on each host, a quarter of the rows on each of its GPUs.
    assert grid[1] == Share(251, 502, 0, 128)
    assert grid[5] == Share(251, 502, 128, 256)
    assert copies == [Share(0, ROWS, 0, WIDTH)] * 8


@needs_torchrec
def test_the_planner_cuts_tables_that_fit_no_gpu() -> None:
    # 100 million rows of 256 floats are 95 GiB; without a GPU the planner takes it to have 32.
    large = shares(lowering("auto", "auto", rows=100_000_000), POD)
    for table in large:
        assert sum(stop - start for start, stop, _, _ in table) == 100_000_000
        assert max(stop - start for start, stop, _, _ in table) <= 25_000_000
    assert all(max(pieces) != NOTHING for pieces in zip(*large, strict=True))


@needs_torchrec
def test_whole_tables_go_to_whoever_holds_least() -> None:
    sizes = [TableSpec(f"t{at}", "unified", 8, rows=r) for at, r in enumerate((10, 40, 20, 30))]
    features = tuple(FeatureSpec(f"f{at}", "id", ("x",), "id", table=f"t{at}") for at in range(4))
    tables = tuple(replace(table, sharding="table_wise") for table in sizes)
    found = shares(lower(features, tables, {}), Cluster(2, 2))
    assert [[piece != NOTHING for piece in table].index(True) for table in found] == [0, 0, 1, 1]


@needs_torchrec
def test_a_grid_of_more_columns_than_hosts_is_refused() -> None:
    wide = lowering("grid", width=512)
    with pytest.raises(TrainingError, match="for 4 hosts, there are 2: use table_row_wise"):
        shares(wide, POD)


@pytest.mark.parametrize("kind", ON_CUDA)
def test_what_only_gpus_can_do_is_refused_on_the_cpu(kind: str) -> None:
    found = lowering(kind)
    with pytest.raises(TrainingError) as raised:
        settle(found, sharding_plan(found), Cluster(2, 2, "cpu"))
    assert str(raised.value) == (
        f"tables.t0.sharding is {kind}, which TorchRec has for CUDA only, and this training runs "
        "on cpu: use row_wise, table_wise, column_wise or data_parallel, or leave it out"
    )
    assert shares(found, Cluster()) == [[Share(0, ROWS, 0, WIDTH)]]


def test_fewer_columns_than_processes_are_refused() -> None:
    found = lowering("column_wise", width=2)
    with pytest.raises(TrainingError, match="2 columns for 4 processes: use row_wise"):
        settle(found, sharding_plan(found), Cluster(4, 4))


@needs_torchrec
def test_too_few_rows_to_cut_lie_whole_on_one_process() -> None:
    (found,) = shares(lowering("row_wise", rows=5), Cluster(4, 4))
    assert sorted(found) == [NOTHING, NOTHING, NOTHING, Share(0, 5, 0, WIDTH)]


@given(size=st.integers(1, 10_000), ranks=st.integers(1, 64))
@pytest.mark.parametrize("cut", [column_cuts, row_cuts])
def test_cuts_follow_each_other_without_a_gap(
    cut: Callable[[int, int], list[tuple[int, int]]], size: int, ranks: int
) -> None:
    found = cut(size, ranks)
    edges = [0, *(stop for _, stop in found)]
    assert len(found) == ranks
    assert [start for start, _ in found] == edges[:-1]
    assert edges[-1] == size
