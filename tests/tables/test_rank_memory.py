"""The memory that is announced is the memory that is taken."""

from __future__ import annotations

import logging

import pytest

from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.build import build_tables, has_torchrec
from muxrec.tables.lowering import Lowering, lower
from muxrec.tables.memory import measured_training
from muxrec.tables.plan import Cluster, sharding_plan
from muxrec.tables.rank_memory import memory_per_rank

FEATURES = (
    FeatureSpec("item", "id", ("item",), "id", table="items"),
    FeatureSpec("word", "tokens", ("w",), "text", table="shared", probes=2),
    FeatureSpec("tag", "bag", ("t",), "attributes", table="codes"),
)
KNOWN = {f.name: build_vocabulary(f.name, range(30)) for f in FEATURES}


def tables(*kinds: str | None) -> tuple[TableSpec, ...]:
    one, other, third = kinds
    return (
        TableSpec("items", "full", 6, sharding=one),
        TableSpec("shared", "unified", 16, rows=100, sharding=other),
        TableSpec("codes", "int8", 8, sharding=third),
    )


def lowering(*kinds: str | None) -> Lowering:
    return lower(FEATURES, tables(*kinds), KNOWN)


@pytest.mark.parametrize(
    "engine",
    [
        "reference",
        pytest.param(
            "torchrec", marks=pytest.mark.skipif(not has_torchrec(), reason="no torchrec")
        ),
    ],
)
def test_what_is_announced_are_the_bytes_of_the_tensors(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        built = build_tables(FEATURES, tables(None, None, None), vocabularies=KNOWN, engine=engine)
    held = measured_training(built)
    lines = [line for line in caplog.messages if line.startswith("tables_memory ")]
    assert len(lines) == 1
    assert f"weight_bytes={held.rows} state_bytes={held.state} " in lines[0]
    assert f"rank_bytes={held.rows + held.state}" in lines[0]
    assert sum(line.startswith("table_memory ") for line in caplog.messages) == 3


def test_cut_tables_add_up_and_copies_are_held_by_all() -> None:
    found = lowering("column_wise", "data_parallel", None)
    plan = sharding_plan(found)
    items, shared, codes = memory_per_rank(found, plan, Cluster(2, 2))
    # Both processes know each row's sum.
    assert items.ranks == (30 * 3 * 4 + 30 * 4,) * 2
    assert items.weights == 30 * 6 * 4
    assert shared.ranks == (100 * 16 * 4 + 100 * 4,) * 2
    assert codes.sharding == "data_parallel"
    assert codes.ranks[0] == codes.ranks[1] == codes.weights + codes.state


@pytest.mark.skipif(not has_torchrec(), reason="no torchrec")
def test_rows_cut_over_processes_add_up_to_the_table() -> None:
    found = lowering("table_wise", "row_wise", None)
    items, shared, _ = memory_per_rank(found, sharding_plan(found), Cluster(3, 3))
    # Rows of 6 take 8 numbers in fbgemm's memory.
    assert sum(items.ranks) == items.weights + items.state == 30 * 8 * 4 + 30 * 4
    assert sorted(items.ranks)[:2] == [0, 0]
    assert sum(shared.ranks) == shared.weights + shared.state
    assert shared.ranks == (34 * 68, 34 * 68, 32 * 68)
