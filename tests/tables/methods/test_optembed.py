"""``optembed``: rows below a threshold go, widths are searched, and parents stay what they are."""

from __future__ import annotations

import pytest
import torch

from muxrec.tables.memory import serving_of
from muxrec.tables.methods.evolution import MUTANTS, best_genes, crossed, mutant
from muxrec.tables.methods.optembed import OptEmbed, kept_rows
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.methods.row_gates import RowGate, StepFunction


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gate(sparsity: float = 0.0) -> RowGate:
    return RowGate(8, sparsity=sparsity, generator=generator())


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=generator())


def test_three_wanted_numbers_keep_three_or_a_few_more(engine, planted, train_planted) -> None:
    run = train_planted(planted("optembed", {"rounds": 10}, columns=3), engine)
    assert 3 <= run.frozen.lowered[0].tables[0].width < 8
    assert run.error < 0.03 < run.first_error


def test_all_numbers_are_kept_where_all_are_wanted(planted, train_planted) -> None:
    run = train_planted(planted("optembed", {"rounds": 10}))
    table = run.frozen.lowered[0].tables[0]
    assert (table.rows, table.width) == (240, 8)
    assert run.error < 0.05


def test_ids_without_a_vector_lose_their_rows_and_the_map_is_counted(
    engine, planted, train_planted, all_vectors
) -> None:
    run = train_planted(planted("optembed", {"sparsity": 0.01}, share=0.5), engine)
    table, found = run.frozen.lowered[0].tables[0], serving_of(run.frozen)
    assert 110 < table.rows < 130
    assert found.maps == 240 * 2
    assert found.rows == 4 * table.rows * table.width
    vectors = run.vectors()
    kept = vectors.ne(0).any(dim=1)
    assert kept.sum() == table.rows
    assert kept[:120].float().mean() > 0.95
    torch.testing.assert_close(vectors, all_vectors(run.stages[-1], run.planted))


def test_a_mutant_leaves_its_parent_as_it_is() -> None:
    parent, draw = (8,) * 50, generator()
    children = [mutant(parent, 8, draw) for _ in range(100)]
    assert parent == (8,) * 50
    changed = sum(sum(gene != 8 for gene in child) for child in children) / 5000
    # A tenth is drawn anew, an eighth of it as it was.
    assert 0.07 < changed < 0.105


def test_crossings_cut_between_features_and_not_between_numbers() -> None:
    # Fewer features than numbers, and more: the published point was drawn over the numbers.
    for features in (3, 50):
        draw, left, right = generator(), (1,) * features, (2,) * features
        points = {crossed(left, right, draw).count(1) for _ in range(1000)}
        assert points == set(range(features + 1))


def test_evolution_finds_planted_widths_and_asks_once_for_each() -> None:
    wanted, asked = (2, 7, 4), []

    def quality(genes: tuple[int, ...]) -> float:
        asked.append(genes)
        return -sum(abs(a - b) for a, b in zip(genes, wanted, strict=True))

    found = best_genes(quality, features=3, width=8, rounds=40, generator=generator())
    assert sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 1
    assert len(asked) == len(set(asked)) <= 20 + 40 * 2 * MUTANTS


def test_without_evidence_the_widest_is_kept() -> None:
    found = best_genes(lambda _: 0.0, features=4, width=8, rounds=3, generator=generator())
    assert found == (8, 8, 8, 8)


def test_the_step_has_a_slope_that_fades_out() -> None:
    values = torch.tensor([-2.0, -0.7, -0.2, 0.0, 0.2, 0.7, 2.0], requires_grad=True)
    steps = StepFunction.apply(values)
    assert steps.tolist() == [0, 0, 0, 0, 1, 1, 1]
    steps.sum().backward()
    assert values.grad.tolist() == pytest.approx([0, 0.4, 1.2, 2.0, 1.2, 0.4, 0])


def test_the_penalty_raises_the_threshold() -> None:
    module = gate(sparsity=0.1)
    module.penalty().backward()
    assert module.threshold.grad.item() == pytest.approx(-0.1)


def test_widths_are_drawn_for_every_batch_in_training_only() -> None:
    module = gate()
    widths = [int(module(rows(5), None, None)[0].ne(0).sum()) for _ in range(100)]
    assert set(widths) == set(range(1, 9))
    module.eval()
    assert torch.equal(module(rows(5), None, None), rows(5))
    module.prefix.fill_(3)
    assert torch.equal(module(rows(5), None, None)[:, :3], rows(5)[:, :3])
    assert module(rows(5), None, None)[:, 3:].eq(0).all()


def test_one_row_is_kept_at_least() -> None:
    module = gate()
    with torch.no_grad():
        module.threshold.fill_(1e6)
    assert module.kept(rows(9)).sum() == 1


def test_a_map_that_outweighs_the_dropped_rows_is_not_made() -> None:
    is_kept = torch.arange(100) > 0
    places, left = kept_rows(rows(100), is_kept, 4)
    assert places is None
    assert left.shape == (100, 4)
    assert left[0].eq(0).all()
    places, left = kept_rows(rows(100), torch.arange(100) > 50, 4)
    assert places is not None
    assert left.shape == (49, 4)
    assert places.tolist() == [-1] * 51 + list(range(49))


def test_what_is_left_starts_from_its_rows(planted) -> None:
    declared = planted("optembed", {"rounds": 1}, None, (100, 60)).declared()
    tables = {"t.f0": rows(100), "t.f1": rows(60)}
    gates = {"f0": gate(), "f1": gate()}
    with torch.no_grad():
        gates["f0"].threshold.fill_(float(rows(100).abs().sum(dim=1).median()))

    def evaluate() -> float:
        return -abs(int(gates["f0"].prefix) - 8) - abs(int(gates["f1"].prefix) - 8)

    left = OptEmbed().advance(declared, tables, gates, evaluate)
    lowered = OptEmbed().lower(
        Declared(declared.table, declared.readers, declared.vocabularies, 1, left.carried)
    )
    assert {t.name: (t.rows, t.width) for t in lowered.tables} == {
        "t.f0": (50, 8),
        "t.f1": (60, 8),
    }
    places = lowered.reads[0].address(torch.arange(100), torch.arange(100), 50)
    kept = places >= 0
    assert torch.equal(left.values["t.f0"][places[kept]], rows(100)[kept])
