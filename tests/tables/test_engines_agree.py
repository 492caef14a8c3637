"""The torchrec engine computes what the reference computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from muxrec.errors import MissingExtraError, RecipeError
from muxrec.spec.features import FeatureSpec, TableSpec
from muxrec.tables import build
from muxrec.tables.bags import bags_from_lists
from muxrec.tables.build import build_tables, has_torchrec, sharding_plan
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.fused import FusedTables
from muxrec.tables.lowering import lower
from muxrec.tables.optimizer import row_steps
from muxrec.tables.reference import ReferenceTables

needs_torchrec = pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed")
NAMES = ("item", "genre", "word", "type")


def engines(declared):
    return [
        build_tables(
            declared.features,
            declared.tables,
            vocabularies=declared.vocabularies,
            engine=engine,
            seed=3,
            lr=0.1,
        )
        for engine in ("reference", "torchrec")
    ]


@needs_torchrec
def test_both_start_from_the_same_rows(declared) -> None:
    reference, torchrec = (tables.export_state() for tables in engines(declared))
    for name, rows in reference.tables.items():
        assert torch.equal(rows.weight, torchrec.tables[name].weight)
        assert rows.momentum.eq(0).all()
        assert torchrec.tables[name].momentum.eq(0).all()


@needs_torchrec
@pytest.mark.parametrize("longest", [1, 6])
def test_both_train_alike_step_by_step(declared, make_batch, longest: int) -> None:
    both = engines(declared)
    optimizers = [tables.table_optimizer() for tables in both]
    for step in range(25):
        batch = make_batch(NAMES, seed=step, longest=longest)
        losses = []
        for tables, optimizer in zip(both, optimizers, strict=True):
            optimizer.set_lr(0.1 / (1 + step))
            loss = sum((v.sin() + v.square()).mean() for v in tables(batch).values())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        # float32 sums of a few dozen terms in another order.
        assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-7)
    reference, torchrec = (tables.export_state() for tables in both)
    for name, rows in reference.tables.items():
        torch.testing.assert_close(rows.weight, torchrec.tables[name].weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            rows.momentum, torchrec.tables[name].momentum, rtol=1e-5, atol=1e-9
        )


@needs_torchrec
@pytest.mark.parametrize("width", [1, 3, 6])
def test_rows_of_any_width_train_alike_on_both_engines(width: int, make_batch) -> None:
    features = (FeatureSpec("f", "bag", ("f",), "id", table="t", probes=2),)
    declared = (TableSpec("t", "hashed", width, rows=9),)
    engines = [
        build_tables(features, declared, vocabularies={}, engine=engine, lr=0.1)
        for engine in ("reference", "torchrec")
    ]
    for step in range(3):
        batch = make_batch(("f",), seed=step)
        for tables in engines:
            optimizer = tables.table_optimizer()
            tables(batch)["f"].sin().sum().backward()
            optimizer.step()
    one, other = (tables.export_state().tables["t.f"] for tables in engines)
    assert one.weight.shape == (9, width)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(one.momentum, other.momentum, rtol=1e-5, atol=1e-9)


@needs_torchrec
def test_the_default_engine_is_torchrec(declared) -> None:
    tables = build_tables(declared.features, declared.tables, vocabularies=declared.vocabularies)
    assert isinstance(tables, FusedTables)


def test_without_torchrec_the_reference_is_built_and_torchrec_refused(
    declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "has_torchrec", lambda: False)
    arguments = (declared.features, declared.tables)
    tables = build_tables(*arguments, vocabularies=declared.vocabularies)
    assert isinstance(tables, ReferenceTables)
    with pytest.raises(MissingExtraError, match="install the extras train"):
        build_tables(*arguments, vocabularies=declared.vocabularies, engine="torchrec")


def test_a_full_table_without_vocabulary_is_refused(declared) -> None:
    with pytest.raises(RecipeError, match=r"tables\.items is full and read by item"):
        build_tables(declared.features, declared.tables, vocabularies={})


def test_tables_that_no_feature_reads_are_left_aside(declared) -> None:
    tables = build_tables(
        declared.features[1:2], declared.tables, vocabularies={}, engine="reference"
    )
    assert tables.row_ranges() == {"shared": (0, 101)}


def test_no_sparse_feature_is_no_vector() -> None:
    assert build_tables((), (), vocabularies={})({}) == {}


def test_features_of_different_batch_sizes_are_refused(declared) -> None:
    tables = build_tables(
        declared.features[1:3], declared.tables[1:2], vocabularies={}, engine="reference"
    )
    batch = {"genre": bags_from_lists([[1]]), "word": bags_from_lists([[1], [2]])}
    with pytest.raises(ValueError, match="same number of bags, got genre 1, word 2"):
        tables(batch)


def test_sharding_follows_the_recipe_and_then_the_method(declared) -> None:
    own = replace(declared.tables[2], sharding="column_wise")
    tables = (*declared.tables[:2], own)
    lowering = lower(declared.features, tables, declared.vocabularies)
    assert sharding_plan(lowering) == {
        "items.item": "table_wise",
        "shared": "row_wise",
        "own.type": "column_wise",
    }


@needs_torchrec
def test_a_table_under_rmsprop_is_held_in_plain_torch_beside_fused_ones(
    declared, make_batch
) -> None:
    tables = (*declared.tables[:2], replace(declared.tables[2], optimizer="rmsprop"))
    engines = [
        build_tables(
            declared.features, tables, vocabularies=declared.vocabularies, engine=engine, lr=0.1
        )
        for engine in ("reference", "torchrec")
    ]
    names = tuple(feature.name for feature in declared.features)
    for step in range(3):
        for built in engines:
            optimizer = built.table_optimizer()
            sum(v.sin().sum() for v in built(make_batch(names, seed=step)).values()).backward()
            optimizer.step()
    one, other = (built.export_state().tables for built in engines)
    for name, rows in one.items():
        torch.testing.assert_close(rows.weight, other[name].weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows.momentum, other[name].momentum, rtol=1e-5, atol=1e-9)


def test_rmsprop_forgets_and_is_corrected_for_its_start_at_zero() -> None:
    momentum, rows = torch.zeros(2), torch.tensor([1])
    gradient = torch.full((1, 4), 2.0)
    step = row_steps(momentum, rows, gradient, lr=0.5, rule="rmsprop", updates=1)
    assert momentum.tolist() == [0.0, pytest.approx(0.04)]
    torch.testing.assert_close(step, torch.full((1, 4), -0.5))
    for age in range(2, 2000):
        row_steps(momentum, rows, torch.ones(1, 4), lr=0.5, rule="rmsprop", updates=age)
    assert momentum[1].item() == pytest.approx(1.0, abs=1e-4)
    late = row_steps(momentum, torch.tensor([0]), gradient, lr=0.5, rule="rmsprop", updates=2000)
    torch.testing.assert_close(late, torch.full((1, 4), -5.0))


def test_a_batch_without_ids_is_no_update_under_rmsprop() -> None:
    features = (FeatureSpec("f", "bag", ("f",), "id", table="t"),)
    declared = (TableSpec("t", "hashed", 4, rows=9, optimizer="rmsprop"),)
    tables = build_tables(features, declared, vocabularies={})
    counted = []
    for ids in ([], [5], []):
        tables({"f": bags_from_lists([ids, []])})["f"].sin().sum().backward()
        tables.table_optimizer().step()
        counted.append(tables.local_tables()["t.f"].updates.item())
    assert counted == [0, 1, 1]


def test_a_table_under_rmsprop_goes_on_after_a_checkpoint(tmp_path, make_batch) -> None:
    features = (FeatureSpec("f", "bag", ("f",), "id", table="t", probes=2),)
    declared = (TableSpec("t", "hashed", 4, rows=9, optimizer="rmsprop"),)

    def step(tables, number: int) -> None:
        optimizer = tables.table_optimizer()
        tables(make_batch(("f",), seed=number))["f"].sin().sum().backward()
        optimizer.step()

    whole, first, second = (build_tables(features, declared, vocabularies={}) for _ in range(3))
    for number in range(4):
        step(whole, number)
    for number in range(2):
        step(first, number)
    write_state(first.export_state(), tmp_path)
    second.load_table_state(read_state(tmp_path))
    for number in range(2, 4):
        step(second, number)
    one, other = (tables.export_state().tables["t.f"] for tables in (whole, second))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.momentum, other.momentum)
