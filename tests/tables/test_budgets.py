"""Budgets become sizes: as many bytes as fit, and never one more."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import pytest

from muxrec.errors import MuxrecError, RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import Vocabulary, build_vocabulary
from muxrec.tables.budget import check_frozen, served_bytes, solve_budgets
from muxrec.tables.build import Tables, build_tables
from muxrec.tables.lowering import lower
from muxrec.tables.memory import serving_of

FEATURES = (
    FeatureSpec("item", "id", ("item",), "id", table="t", probes=2),
    FeatureSpec("genre", "bag", ("genre",), "attributes", table="t"),
)
KNOWN = {
    "item": build_vocabulary("item", range(900)),
    "genre": build_vocabulary("genre", range(20)),
}
UNIFIED = TableSpec("t", "unified", 8, budget="10%")
FULL_BYTES = (2 * 900 + 20) * 8 * 4


def solved(table: TableSpec, known: dict[str, Vocabulary] = KNOWN) -> TableSpec:
    return solve_budgets(FEATURES, (table,), known)[0]


def test_a_share_is_one_of_the_full_tables_with_vectors_as_wide() -> None:
    table = solved(UNIFIED)
    assert (table.budget, table.rows) == (None, FULL_BYTES // 10 // 32)


@pytest.mark.parametrize("budget", ["1kB", "77777B", "3MiB", "33%", "0.5x"])
@pytest.mark.parametrize("method", ["unified", "hashed"])
def test_one_more_row_would_be_too_many(method: str, budget: str) -> None:
    table = solved(replace(UNIFIED, method=method, budget=budget))
    assert table.rows is not None
    allowed = {"1kB": 1000, "77777B": 77777, "3MiB": 3 * 2**20}.get(budget)
    share = {"33%": 0.33, "0.5x": 0.5}.get(budget, 0)
    limit = int(share * FULL_BYTES) if allowed is None else allowed
    assert served_bytes(table, FEATURES, KNOWN) <= limit
    # A hashed table's rows are dealt to two readers, so a row more may stay undealt.
    wider = replace(table, rows=table.rows + 2)
    assert served_bytes(wider, FEATURES, KNOWN) > limit


@pytest.mark.parametrize(("serve", "row_bytes"), [("fp16", 16), ("int8", 12)])
def test_the_served_format_decides_what_fits(serve: str, row_bytes: int) -> None:
    table = solved(replace(UNIFIED, budget="6kB", serve_dtype=serve))
    assert table.rows == 6000 // row_bytes


def test_an_impossible_budget_says_the_smallest_size_and_what_to_do() -> None:
    with pytest.raises(RecipeError) as error:
        solved(replace(UNIFIED, method="hashed", budget="50B"))
    assert str(error.value) == (
        "tables.t.budget 50B: hashed cannot go below 64 B here: raise it or use unified"
    )


def test_a_table_without_a_size_of_its_own_is_only_checked() -> None:
    full = TableSpec("t", "full", 8, budget="40kB")
    features = tuple(replace(feature, probes=1) for feature in FEATURES)
    assert solve_budgets(features, (full,), KNOWN) == (replace(full, budget=None),)
    with pytest.raises(RecipeError, match=r"20%: full cannot go below 29\.4 kB here"):
        solve_budgets(features, (replace(full, budget="20%"),), KNOWN)


def test_a_budget_beyond_what_a_hash_can_reach_is_filled_up_to_there() -> None:
    table = solved(replace(UNIFIED, method="robe", width=16, budget="20GB"))
    assert table.rows == (2**31 - 1) // 4


def test_a_share_needs_to_know_the_ids() -> None:
    with pytest.raises(RecipeError, match=r"the ids of genre must be known: give it in bytes"):
        solved(UNIFIED, {"item": KNOWN["item"]})
    assert solved(replace(UNIFIED, budget="640B"), {}).rows == 20


def test_tables_without_a_budget_or_a_reader_stay_as_they_are() -> None:
    tables = (TableSpec("t", "unified", 8, rows=5), replace(UNIFIED, name="unread"))
    assert solve_budgets(FEATURES, tables, KNOWN) == tables


def test_requested_and_real_bytes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="muxrec.tables"):
        solved(replace(UNIFIED, budget="1kB"))
    assert caplog.messages == [
        "budget table=t method=unified budget=1kB budget_bytes=1000 served_bytes=992 rows=31"
    ]


def test_tables_are_built_in_the_size_that_their_budget_gives() -> None:
    tables = build_tables(FEATURES, (UNIFIED,), vocabularies=KNOWN, engine="reference")
    lowering = cast(Tables, tables).lowering
    assert serving_of(lowering).limited == FULL_BYTES // 10 // 32 * 32


def test_a_frozen_table_above_its_budget_is_refused() -> None:
    frozen = lower(FEATURES, (replace(UNIFIED, budget=None, rows=100),), KNOWN)
    check_frozen(frozen, (replace(UNIFIED, budget="3170B"),))
    with pytest.raises(MuxrecError, match=r"3\.16kB \(3\.16 kB\): trained, unified takes 3\.2 kB"):
        check_frozen(frozen, (replace(UNIFIED, budget="3.16kB"),))
