"""``memcom``: a hashed row times a number of the id's own."""

from __future__ import annotations

import pytest
import torch

from muxrec.spec.hashing import hash_rows
from muxrec.tables.bags import bags_from_lists
from muxrec.tables.methods.memcom import Memcom


@pytest.mark.parametrize("bias", [0, 1])
def test_ids_start_as_their_hashed_rows(planted, all_vectors, bias: int) -> None:
    given = planted("memcom", {"bias": bias}, rows=20)
    tables = given.build()
    rows = tables.local_tables()["t.f0"].weight
    places = hash_rows(given.vocabularies["f0"].ids(), name="f0", probe=0, rows=20)
    assert torch.equal(all_vectors(tables, given), rows[torch.from_numpy(places)])


def test_ids_of_one_row_part_by_factor_and_bias(planted, train_planted) -> None:
    for bias in (0, 1):
        trained = train_planted(planted("memcom", {"bias": bias}, rows=1), epochs=2)
        vectors = trained.vectors()
        assert len(vectors.unique(dim=0)) > 200
        rank = torch.linalg.matrix_rank(vectors, atol=1e-4)
        assert int(rank) == 1 + bias


@pytest.mark.parametrize(("bias", "each"), [(0, 1), (1, 2)])
def test_an_id_costs_one_number_or_two(planted, bias: int, each: int) -> None:
    lowered = Memcom().lower(planted("memcom", {"bias": bias}, rows=20).declared())
    assert sum(table.rows * table.width for table in lowered.tables) == 20 * 8 + each * 240


def test_factors_are_served_without_a_scale_of_their_own(planted) -> None:
    from dataclasses import replace

    for dtype, wanted in (("int4", "fp32"), ("fp16", "fp16"), ("fp32", "fp32")):
        declared = planted("memcom", rows=20).declared()
        declared = replace(declared, table=replace(declared.table, serve_dtype=dtype))
        rows, factors = Memcom().lower(declared).tables
        assert (rows.serve, factors.serve) == (dtype, wanted)


def test_rows_are_dealt_by_known_ids_and_small_features_stay_full(planted) -> None:
    lowered = Memcom().lower(planted("memcom", rows=30, sizes=(200, 100, 2, 0)).declared())
    assert {table.name: (table.rows, table.width) for table in lowered.tables} == {
        "t.f0": (19, 8),
        "t.f0.factor": (200, 1),
        "t.f1": (9, 8),
        "t.f1.factor": (100, 1),
        "t.f2": (1, 8),
        "t.f2.factor": (2, 1),
        "t.f3": (1, 8),
    }


def test_unknown_ids_are_dropped(planted) -> None:
    tables = planted("memcom", rows=20).build()
    found = tables({"f0": bags_from_lists([[1000, 7], [1000], [7]])})["f0"]
    assert torch.equal(found[0], found[1])
    assert found[2].eq(0).all()


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("memcom", {"bias": 1}, rows=60))
    assert trained.error < 0.9 * trained.first_error
