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
        searched = {id(parameter) for parameter in tables.vectors.architecture()}
        others = [at for at, p in enumerate(parameters_of(tables)) if id(p) not in searched]
        found = directional_derivatives(case, tables)
        # A reason is kept only as long as it is true.
        assert all(found[at] for at in found if at in others) is (stage not in case.no_gradient)
        if searched:
            alike = all(found[at] for at in found if at not in others)
            assert alike is (f"{stage}, architecture" not in case.no_gradient)


def directional_derivatives(case, tables: ReferenceTables) -> dict[int, bool]:
    """Whether each parameter's derivative in some direction is the difference quotient."""
    batch = case.batch(seed=3, size=8, longest=3)

    def loss(at: int = -1, step: torch.Tensor | None = None) -> torch.Tensor:
        torch.manual_seed(0)  # Some methods draw masks while they train, or count their draws.
        fresh = copy.deepcopy(tables)
        if step is not None:
            parameters_of(fresh)[at].data.add_(step)
        found = case.loss(fresh, batch)
        if step is None:
            found.backward()
            gradients.extend(parameter.grad for parameter in parameters_of(fresh))
        return found.detach()

    gradients: list[torch.Tensor | None] = []
    loss()
    generator = torch.Generator().manual_seed(1)
    found = {}
    for at, gradient in enumerate(gradients):
        if gradient is not None:
            step = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            quotient = (loss(at, STEP * step) - loss(at, -STEP * step)) / (2 * STEP)
            wanted = (gradient.to_dense() * step).sum()
            # Central differences in double precision: errors of STEP squared and rounding / STEP.
            found[at] = bool(torch.isclose(quotient, wanted, rtol=1e-5, atol=1e-8))
    assert found
    return found


def parameters_of(tables: ReferenceTables) -> list[nn.Parameter]:
    """Rows, and the parameters of the maps."""
    rows = [cast(TableGroup, table).weight for table in tables.table_groups()]
    return [*rows, *tables.vectors.parameters()]


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


@needs_torchrec
def test_all_stages_end_in_the_same_vectors_on_every_engine(case) -> None:
    ours, theirs = case.walk(), case.walk(engine="torchrec")
    assert list(ours.ended) == list(theirs.ended)
    batch = case.batch(seed=7)
    for name, vectors in ours.served(batch).items():
        # Twenty steps with sums in another order; rounded rows may land a step apart.
        torch.testing.assert_close(vectors, theirs.served(batch)[name], rtol=1e-3, atol=1e-4)


def test_what_is_served_answers_as_what_was_trained(case) -> None:
    walked, batch = case.walk(), case.batch(seed=8)
    trained, served = walked.trained(batch), walked.served(batch)
    alike = [
        torch.allclose(served[name], trained[name], rtol=1e-5, atol=1e-6) for name in case.names
    ]
    # A reason is kept only as long as it is true.
    assert all(alike) is (case.not_served_as_trained is None)
