"""``autodim``: widths are weighed by search steps, whatever the batch."""

from __future__ import annotations

import copy

import pytest
import torch

from muxrec.tables.methods.autodim import AutoDim, candidate_widths
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.methods.width_search import COLDEST, CoolingHook, WidthMix

WIDTHS = (2, 4, 8)


def mix(seed: int = 0) -> WidthMix:
    generator = torch.Generator().manual_seed(seed)
    return WidthMix(WIDTHS, first_square=1.0, lr=0.1, generator=generator)


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, sum(WIDTHS), generator=torch.Generator().manual_seed(0))


def test_vectors_of_full_rank_want_the_full_width(engine, planted, train_planted) -> None:
    run = train_planted(planted("autodim", {"alpha_lr": 1.0}), engine)
    weights = run.stages[0].vectors.maps[0].alpha
    assert weights.argsort().tolist() == [0, 1, 2]
    assert [table.width for table in run.frozen.lowered[0].tables] == [8]
    assert run.error < 0.05 < run.first_error


def test_vectors_of_one_direction_keep_a_narrow_table(engine, planted, train_planted) -> None:
    run = train_planted(planted("autodim", {"alpha_lr": 1.0}, columns=1), engine)
    assert run.frozen.lowered[0].tables[0].width < 8
    assert run.error < 0.01


def test_a_vector_does_not_depend_on_the_rest_of_its_batch() -> None:
    for training in (True, False):
        one, many = mix().train(training), mix().train(training)
        alone = one(rows(50)[:1], None, None)
        torch.testing.assert_close(alone, many(rows(50), None, None)[:1], rtol=0, atol=1e-6)
    assert mix()(torch.empty(0, sum(WIDTHS)), None, None).shape == (0, 8)


def test_a_batch_of_one_id_changes_the_mean_squares_by_little() -> None:
    module = mix()
    module(100 * rows(1), None, None)
    assert module.squares.max() < 0.1 * 100**2
    assert module.squares.isfinite().all()


def test_every_width_has_one_mean_square() -> None:
    module = mix()
    module.squares.copy_(torch.tensor([1.0, 4.0, 0.25]))
    torch.testing.assert_close(
        module.squares * module.scales().square(), module.squares.mean().expand(3)
    )


def test_the_chosen_width_goes_on_as_it_was(planted) -> None:
    for at, inner in enumerate(WIDTHS):
        declared = planted("autodim").declared()
        lowered = AutoDim().lower(declared)
        module = lowered.combines["f0"].eval()
        with torch.no_grad():
            module.alpha[at] = 9
            module.temperature.fill_(COLDEST)
            module.squares.copy_(torch.tensor([1.0, 2.0, 3.0]))
        tables = {t.name: rows(240)[:, : t.width] for t in lowered.tables}
        before = module(torch.cat(list(tables.values()), dim=1), None, None)
        left = AutoDim().advance(declared, tables, {"f0": module}, lambda: 0.0)
        later = AutoDim().lower(
            Declared(declared.table, declared.readers, declared.vocabularies, 1, left.carried)
        )
        assert [table.width for table in later.tables] == [inner]
        found = left.values[later.tables[0].name]
        if "f0" in later.combines:
            found = later.combines["f0"](found)
        torch.testing.assert_close(found, before, rtol=0, atol=1e-5)


def test_weights_are_drawn_in_training_and_fixed_otherwise() -> None:
    module = mix()
    assert not torch.equal(module(rows(3), None, None), module(rows(3), None, None))
    module.eval()
    assert torch.equal(module(rows(3), None, None), module(rows(3), None, None))


def test_a_resumed_search_draws_as_if_it_had_never_stopped() -> None:
    module = mix()
    module(rows(3), None, None)
    resumed = mix(seed=0)
    resumed.load_state_dict(copy.deepcopy(module.state_dict()))
    assert torch.equal(module(rows(3), None, None), resumed(rows(3), None, None))


def test_the_temperature_falls_to_almost_nothing() -> None:
    module = mix()
    hook, found = CoolingHook([module]), []
    for share in (0.0, 0.5, 1.0):
        hook.after_step(None, step=0, share=share)
        found.append(float(module.temperature))
    assert found == pytest.approx([1.0, 0.505, COLDEST])


def test_widths_that_save_nothing_are_no_candidates(planted) -> None:
    declared = planted("autodim", {}, None, (240, 9, 3, 2, 0)).declared()
    found = [candidate_widths(declared, reader) for reader in declared.readers]
    assert found == [[2, 4, 8], [2, 4, 8], [2, 8], [8], [8]]
