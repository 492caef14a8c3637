"""Training of every method: gradients, engines, states, stages."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import nn

from muxrec.spec.vocabulary import build_vocabulary
from muxrec.tables.build import build_tables, has_torchrec
from muxrec.tables.convert import read_state, write_state
from muxrec.tables.held import TableGroup
from muxrec.tables.methods import METHODS
from muxrec.tables.reference import ReferenceTables
from muxrec.tables.staging import keep_maps

STEP = 1e-6
needs_torchrec = pytest.mark.skipif(not has_torchrec(), reason="torchrec is not installed")


def test_the_gradient_is_the_numerical_one_in_every_stage(case) -> None:
    for stage, ended in case.walk().ended.items():
        if any(table.storage != "fp32" for table in ended.lowering.lowered[0].tables):
            assert stage in case.no_gradient
            continue
        tables = copy.deepcopy(cast(ReferenceTables, ended)).double().train()
        # A reason is kept only as long as it is true.
        assert has_numerical_gradient(case, tables) is (stage not in case.no_gradient)


def has_numerical_gradient(case, tables: ReferenceTables) -> bool:
    """Whether directional derivatives by rows and by every parameter are difference quotients."""
    batch = case.batch(seed=3, size=8, longest=3)

    def loss() -> torch.Tensor:
        torch.manual_seed(0)  # Some methods draw masks while they train.
        return case.loss(tables, batch)

    loss().backward()
    weights = [cast(TableGroup, table).weight for table in tables.table_groups()]
    trained = [p for p in [*weights, *tables.vectors.parameters()] if p.grad is not None]
    assert trained
    generator = torch.Generator().manual_seed(1)
    alike = []
    for parameter in trained:
        step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter += STEP * step
            above = loss()
            parameter -= 2 * STEP * step
            below = loss()
            parameter += STEP * step
        wanted = (parameter.grad.to_dense() * step).sum()
        # Central differences in double precision: an error of STEP squared, and rounding / STEP.
        alike.append(torch.isclose((above - below) / (2 * STEP), wanted, rtol=1e-5, atol=1e-8))
    return all(alike)


@needs_torchrec
def test_three_steps_give_the_same_rows_on_every_engine(case) -> None:
    both = [case.build(engine) for engine in ("reference", "torchrec")]
    losses = [case.train(tables, steps=3) for tables in both]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]))
    ours, theirs = (tables.export_state() for tables in both)
    assert ours.reads == theirs.reads
    for name, rows in ours.tables.items():
        other = theirs.tables[name]
        # Sums in another order; a rounded row may land a step away.
        atol = 1e-6 if rows.scale is None else float(rows.scale.max()) * 1.01
        torch.testing.assert_close(rows.floats(), other.floats(), rtol=1e-5, atol=atol)
        torch.testing.assert_close(rows.momentum, other.momentum, rtol=1e-4, atol=1e-8)
    for left, right in zip(both[0].vectors.parameters(), both[1].vectors.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss(case, engine: str) -> None:
    tables = case.build(engine)
    losses = case.train(tables, steps=12)
    assert sum(losses[-3:]) < sum(losses[:3])


def test_a_state_survives_the_disk_and_moves_between_engines(
    case, engine: str, engines: list[str], tmp_path
) -> None:
    tables, batch = case.build(engine), case.batch(seed=2)
    case.train(tables, steps=2)
    cast(nn.Module, tables).eval()
    write_state(tables.export_state(), tmp_path)
    for other in engines:
        fresh = case.build(other, seed=9)
        fresh.load_table_state(read_state(tmp_path))
        keep_maps(fresh, tables)
        cast(nn.Module, fresh).eval()
        for name in case.names:
            torch.testing.assert_close(
                fresh(batch)[name], tables(batch)[name], rtol=1e-5, atol=1e-6
            )
        ours, theirs = tables.export_state().tables, fresh.export_state().tables
        assert ours.keys() == theirs.keys()
        for name, rows in ours.items():
            assert torch.equal(rows.weight, theirs[name].weight)
            assert torch.equal(rows.momentum, theirs[name].momentum)


def test_adding_a_table_and_a_feature_moves_no_vector(case, engine: str) -> None:
    newcomer = replace(case.features()[0], name="newcomer", table="other")
    both = build_tables(
        (newcomer, *case.features()),
        (replace(case.table(), name="other"), case.table()),
        vocabularies={**case.vocabularies, "newcomer": build_vocabulary("newcomer", range(30))},
        engine=engine,
    )
    batch, alone = case.batch(seed=4), case.build(engine)
    torch.manual_seed(0)
    wanted = cast(nn.Module, alone).eval()(batch)
    torch.manual_seed(0)
    found = cast(nn.Module, both).eval()({**batch, "newcomer": batch[case.names[0]]})
    for name in case.names:
        assert torch.equal(found[name], wanted[name])


def test_adding_a_feature_to_the_table_moves_no_other_vector(case, engine: str) -> None:
    newcomer = replace(case.features()[0], name="newcomer")
    both = build_tables(
        (newcomer, *case.features()),
        (case.table(),),
        vocabularies={**case.vocabularies, "newcomer": build_vocabulary("newcomer", range(5))},
        engine=engine,
    )
    batch = case.batch(seed=4)
    found = cast(nn.Module, both).eval()({**batch, "newcomer": batch[case.names[0]]})
    wanted = cast(nn.Module, case.build(engine)).eval()(batch)
    stays = all(torch.equal(found[name], wanted[name]) for name in case.names)
    assert stays is (case.moved_by_others is None)


def test_a_training_walks_through_all_stages(case) -> None:
    walked = case.walk()
    stages = [stage.name for stage in METHODS[case.method].stages_of(case.table())]
    assert list(walked.ended) == stages
    batch = case.batch(seed=7)
    for tables in (walked.trained, walked.served):
        vectors = tables(batch)
        assert all(vectors[name].isfinite().all() for name in case.names)
        assert any(vectors[name].ne(0).any() for name in case.names)
    assert walked.frozen.lowered[0].hook is None


def test_what_is_served_answers_as_what_was_trained(case) -> None:
    walked, batch = case.walk(), case.batch(seed=8)
    trained, served = walked.trained(batch), walked.served(batch)
    alike = [
        torch.allclose(served[name], trained[name], rtol=1e-5, atol=1e-6) for name in case.names
    ]
    # A reason is kept only as long as it is true.
    assert all(alike) is (case.not_served_as_trained is None)
