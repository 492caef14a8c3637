"""States, their files, and what may open them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from muxrec.errors import TrainingError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.bags import bags_from_lists
from muxrec.tables.build import build_tables
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.initial import BLOCK, fill_initial, initial_rows
from muxrec.tables.methods import PhysicalTable
from muxrec.tables.state import TableRows, TableState


def reference(declared, **changes: object):
    arguments = {"vocabularies": declared.vocabularies, "engine": "reference", **changes}
    return build_tables(declared.features, declared.tables, **arguments)


def shares(state: TableState, cuts: list[int]) -> list[TableState]:
    """The state as ranks would hold it, each table cut at ``cuts`` percent."""
    found = []
    for low, high in zip([0, *cuts], [*cuts, 100], strict=True):
        tables = {
            name: rows.slice(rows.total * low // 100, rows.total * high // 100)
            for name, rows in state.tables.items()
        }
        found.append(replace(state, tables=tables))
    return found


@pytest.mark.parametrize("cuts", [[], [50], [1, 2, 90]])
def test_any_cut_into_ranks_reads_back_whole_or_in_part(
    declared, tmp_path: Path, cuts: list[int]
) -> None:
    state = reference(declared).export_state()
    for rank, share in enumerate(shares(state, cuts)):
        write_state(share, tmp_path, rank=rank)
    whole = read_state(tmp_path)
    assert whole.reads == state.reads
    for name, rows in state.tables.items():
        assert torch.equal(whole.tables[name].weight, rows.weight)
        part = read_state(tmp_path, ranges=dict.fromkeys(state.tables, (1, 17))).tables[name]
        assert (part.start, part.stop, part.total) == (1, 17, rows.total)
        assert torch.equal(part.weight, rows.weight[1:17])


def test_a_missing_rank_is_named(declared, tmp_path: Path) -> None:
    state = reference(declared).export_state()
    for rank, share in enumerate(shares(state, [50])):
        write_state(share, tmp_path, rank=rank)
    next(tmp_path.glob("shared.0-*.safetensors")).unlink()
    with pytest.raises(TrainingError, match=r"51 of rows 0\.\.101 of table shared are there"):
        read_state(tmp_path)


def test_a_truncated_file_and_a_missing_index_are_named(declared, tmp_path: Path) -> None:
    write_state(reference(declared).export_state(), tmp_path)
    path = next(tmp_path.glob("own%2Etype.*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=rf"{path.name} is damaged"):
        read_state(tmp_path)
    (tmp_path / "tables.json").unlink()
    with pytest.raises(TrainingError, match=r"holds no readable tables\.json"):
        read_state(tmp_path)


def test_a_table_may_have_any_name(tmp_path: Path) -> None:
    names = ("a/b", "a.0-5", "a", "*", "ключ")
    rows = {
        n: TableRows(2, 0, torch.full((2, 4), float(i)), torch.zeros(2))
        for i, n in enumerate(names)
    }
    write_state(TableState((), rows), tmp_path)
    back = read_state(tmp_path)
    assert {n: back.tables[n].weight[0, 0].item() for n in names} == dict(
        zip(names, range(5), strict=True)
    )


def test_a_state_of_other_reads_tables_or_hash_is_refused(declared) -> None:
    tables = reference(declared)
    state = tables.export_state()
    with pytest.raises(TrainingError, match="hash spec older"):
        tables.load_table_state(replace(state, hash_version="older"))
    renamed = replace(declared.features[1], name="genres")
    other = build_tables(
        (declared.features[0], renamed, *declared.features[2:]),
        declared.tables,
        vocabularies=declared.vocabularies,
        engine="reference",
    )
    with pytest.raises(TrainingError, match="other reads; first difference: shared <- genre#0"):
        other.load_table_state(state)
    wider = (*declared.tables[:2], replace(declared.tables[2], rows=38))
    grown = build_tables(
        declared.features, wider, vocabularies=declared.vocabularies, engine="reference"
    )
    with pytest.raises(TrainingError, match=r"tables\.own\.type has 38 rows of width 4, the saved"):
        grown.load_table_state(state)


def test_a_state_of_another_vocabulary_is_refused(declared) -> None:
    other = {"item": build_vocabulary("item", range(1, 21))}
    with pytest.raises(TrainingError, match=r"items\.item <- item#0 index vocabulary"):
        reference(declared, vocabularies=other).load_table_state(reference(declared).export_state())


def test_an_exported_state_is_a_copy(declared, make_batch) -> None:
    tables = reference(declared)
    state = tables.export_state()
    before = state.tables["shared"].weight.clone()
    sum(
        v.sum() for v in tables(make_batch(("item", "genre", "word", "type"), seed=0)).values()
    ).backward()
    tables.table_optimizer().step()
    assert torch.equal(state.tables["shared"].weight, before)


def test_initial_rows_do_not_depend_on_who_makes_them() -> None:
    table = PhysicalTable("t", BLOCK + 1000, 3, 0.05)
    whole = initial_rows(table, 7)
    part = torch.empty(50, 3)
    fill_initial(part, table, 7, start=BLOCK - 20)
    assert torch.equal(part, whole[BLOCK - 20 : BLOCK + 30])
    assert torch.equal(initial_rows(replace(table, rows=BLOCK), 7), whole[:BLOCK])
    assert initial_rows(table, 7, start=5, stop=5).shape == (0, 3)


def test_initial_rows_are_uniform_and_differ_between_tables_and_blocks() -> None:
    table = PhysicalTable("t", 2 * BLOCK, 2, 0.05)
    rows = initial_rows(table, 0)
    assert rows.abs().max() <= 0.05
    # Standard error of the mean is 0.05 / sqrt(3 * 262144) = 6e-5, of the deviation less.
    assert abs(rows.mean().item()) < 3e-4
    assert rows.std().item() == pytest.approx(0.05 / 3**0.5, rel=1e-2)
    assert not torch.equal(rows[:BLOCK], rows[BLOCK:])
    assert not torch.equal(rows, initial_rows(replace(table, name="u"), 0))


def test_doubling_a_trained_table_changes_no_vector(make_batch) -> None:
    feature = FeatureSpec("f", "bag", ("f",), "attributes", table="t", probes=3)
    small, large = (TableSpec("t", "unified", 8, rows=rows) for rows in (53, 106))
    tables = build_tables((feature,), (small,), vocabularies={}, engine="reference")
    batch = make_batch(("f",), seed=1)
    tables(batch)["f"].sum().backward()
    tables.table_optimizer().step()
    state = tables.export_state()
    rows = state.tables["t"]
    doubled = TableRows(
        106, 0, rows.weight.repeat_interleave(2, 0), rows.momentum.repeat_interleave(2, 0)
    )
    grown = build_tables((feature,), (large,), vocabularies={}, engine="reference")
    grown.load_table_state(replace(state, tables={"t": doubled}))
    assert torch.equal(grown(batch)["f"], tables(batch)["f"])


def test_a_batch_of_one_item_and_one_feature_keeps_the_callers_ids() -> None:
    feature = FeatureSpec("f", "id", ("f",), "id", table="t")
    tables = build_tables((feature,), (TableSpec("t", "hashed", 4, rows=9),), vocabularies={})
    bags = bags_from_lists([[123]])
    tables({"f": bags})
    assert bags.ids.tolist() == [123]
