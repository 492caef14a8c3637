"""``adapt``: frequent ids own rows, all others share hashed ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from muxrec.spec.hashing import hash_rows
from muxrec.tables.bags import bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.methods.adapt import Adapt


def test_frequent_ids_own_rows_and_the_others_hash(planted, all_vectors) -> None:
    given = planted("adapt", {"hot": 0.25}, rows=80)
    tables = given.build()
    held = {name: rows.weight for name, rows in tables.local_tables().items()}
    vectors, ids = all_vectors(tables, given), given.vocabularies["f0"].ids()
    assert torch.equal(vectors[:20], held["t.f0.hot"])
    places = torch.from_numpy(hash_rows(ids[20:], name="f0", probe=0, rows=60))
    assert torch.equal(vectors[20:], held["t.f0.cold"][places])


def test_unseen_ids_read_the_hashed_rows(planted) -> None:
    tables = planted("adapt", rows=80).build()
    found = tables({"f0": bags_from_lists([[7], [10**15], [-1]])})["f0"]
    places = torch.from_numpy(hash_rows([7, 10**15, -1], name="f0", probe=0, rows=40))
    assert torch.equal(found, tables.local_tables()["t.f0.cold"].weight[places])


def test_a_bag_of_a_frequent_and_a_rare_id_is_divided_by_two(planted, engine: str) -> None:
    """Each table sees one id of the bag, but the bag has two."""
    given = planted("adapt", rows=80)
    features = tuple(replace(each, kind="bag", pooling="mean") for each in given.features)
    tables = build_tables(
        features,
        (given.table,),
        vocabularies=given.vocabularies,
        engine=engine,  # type: ignore[arg-type]
    )
    single = tables({"f0": bags_from_lists([[1000], [1239]])})["f0"]
    bag = tables({"f0": bags_from_lists([[1000, 1239], []])})["f0"]
    torch.testing.assert_close(bag[0], single.mean(dim=0), rtol=0, atol=1e-8)


def test_the_list_of_frequent_ids_is_counted(planted) -> None:
    """Published code leaves its map from ids to rows out of the bytes."""
    given = planted("adapt", {"hot": 0.5}, rows=120)
    lowered = Adapt().lower(given.declared())
    hot = next(iter(lowered.reads[0].address.children()))
    assert sum(buffer.nbytes for buffer in hot.buffers()) == 60 * (8 + 4) + 4 * (30 + 1)


@pytest.mark.parametrize(("rows", "is_split"), [(180, True), (190, True), (200, False)])
def test_a_table_that_is_no_smaller_with_its_list_stays_full(
    planted, rows: int, is_split: bool
) -> None:
    # 240 rows of 8 numbers are full; a listed id costs about 3.5 numbers, half a row.
    lowered = Adapt().lower(planted("adapt", {"hot": 0.5}, rows=rows).declared())
    names = [table.name for table in lowered.tables]
    assert names == (["t.f0.hot", "t.f0.cold"] if is_split else ["t.f0"])


def test_the_ends_of_the_hot_share_work(planted, all_vectors) -> None:
    for share, names in ((0.0, ["t.f0.cold"]), (1.0, ["t.f0.hot", "t.f0.cold"])):
        given = planted("adapt", {"hot": share}, rows=30)
        tables = given.build()
        assert [table.name for table in tables.lowering.lowered[0].tables] == names
        assert sum(rows.total for rows in tables.local_tables().values()) == 30
        assert all_vectors(tables, given).ne(0).any(dim=1).all()


def test_small_vocabularies_stay_full(planted) -> None:
    lowered = Adapt().lower(planted("adapt", rows=100, sizes=(240, 2, 1, 0)).declared())
    names = [table.name for table in lowered.tables]
    assert names == ["t.f0.hot", "t.f0.cold", "t.f1.cold", "t.f2", "t.f3"]


def test_it_learns_and_serves_frequent_ids_best(planted, train_planted) -> None:
    trained = train_planted(planted("adapt", {"hot": 0.5}, rows=80))
    assert trained.error < 0.5 * trained.first_error
    errors = (trained.vectors() - trained.planted.targets(240)).square().mean(dim=1)
    assert errors[:40].mean() < 0.2 * errors[40:].mean()
