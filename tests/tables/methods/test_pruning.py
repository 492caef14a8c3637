"""``deeplight``, ``pep`` and ``autosrh``: exact densities, zeros that stay, searches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.tables.initial import initial_rows
from muxrec.tables.memory import serving_bytes, serving_of
from muxrec.tables.methods import METHODS
from muxrec.tables.methods.autosrh import ClipHook, Gates, even_groups
from muxrec.tables.methods.cutting import SPARSE_AT, cut_above, sparsity_at
from muxrec.tables.methods.deeplight import EVERY, WARM_UP, DeepLight, MagnitudeHook
from muxrec.tables.methods.pep import Pep, SoftThreshold, ThresholdHook, above_threshold
from muxrec.tables.methods.pruning import MaskedRows, pack_mask, unpack_mask

PRUNING = ("deeplight", "pep", "autosrh")
DENSITY = 0.4
KEPT = int(DENSITY * 240 * 8)


class HeldTables:
    """Tables in training."""

    def __init__(self, **tables: torch.Tensor) -> None:
        self.tables = {name.replace("_", "."): rows for name, rows in tables.items()}
        self.momentum = torch.ones(240)

    def local(self, name: str):
        return 0, self.tables[name], self.momentum

    def first_column(self, name: str) -> int:
        return 0

    def is_copy(self, name: str) -> bool:
        return False

    def read_ids(self, feature: str, ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (240, 8)), generator=torch.Generator().manual_seed(0))


floats = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0])


@given(st.lists(st.lists(floats, max_size=20), min_size=1, max_size=3), st.integers(0, 40))
def test_a_cut_leaves_the_largest_numbers(parts: list[list[float]], keep: int) -> None:
    tensors = [torch.tensor(part, dtype=torch.float32) for part in parts]
    falling = torch.cat(tensors).sort(descending=True).values
    cut = cut_above(tensors, keep)
    if keep >= len(falling):
        assert cut == -math.inf
    else:
        assert cut == falling[keep]


def test_a_cut_is_exact_among_many_numbers() -> None:
    values = rows(5000, 40)
    assert (values > cut_above([values[:100], values[100:]], 777)).sum() == 777


def test_sparsity_rises_from_the_warm_up_to_the_end() -> None:
    shares = [sparsity_at(at / 100, 0.3, warm_up=WARM_UP) for at in range(101)]
    assert shares == sorted(shares)
    assert shares[int(100 * WARM_UP)] == 0
    assert shares[int(100 * SPARSE_AT)] == pytest.approx(0.7)
    assert shares[30] > 0.7 / 3


@pytest.mark.parametrize("width", [1, 8, 13])
def test_a_mask_survives_its_packing(width: int) -> None:
    mask = rows(9, width) > 0
    bits = pack_mask(mask)
    assert bits.shape == (9, -(-width // 8))
    assert torch.equal(unpack_mask(bits, width).bool(), mask)


def test_no_gradient_passes_a_mask() -> None:
    mask = rows() > 0
    given_rows = rows().requires_grad_()
    MaskedRows(pack_mask(mask), 8)(given_rows, None, torch.arange(240)).sum().backward()
    assert given_rows.grad is not None
    assert torch.equal(given_rows.grad.bool(), mask)


@pytest.mark.parametrize("method", PRUNING)
def test_the_density_is_kept_exactly_and_the_zeros_stay(
    method, engine, planted, train_planted, all_vectors
) -> None:
    run = train_planted(planted(method, {"density": DENSITY}), engine)
    vectors = run.vectors()
    assert vectors.count_nonzero() == KEPT
    trained = all_vectors(run.stages[-1], run.planted)
    torch.testing.assert_close(vectors, trained, rtol=0, atol=0)
    # Without training the error is 1; with the 60 % smallest targets cut it is at least 0.13.
    assert 0.1 < run.error < 0.4


@pytest.mark.parametrize("method", PRUNING)
def test_values_columns_and_row_starts_are_counted(method, planted, train_planted) -> None:
    run = train_planted(planted(method, {"density": DENSITY}), epochs=2, steps=2)
    found = serving_of(run.frozen)
    assert (found.rows, found.maps, found.combine) == (5 * KEPT + 4 * 241, 0, 0)
    shape = METHODS[method].served_shape(run.planted.declared(stage=1))
    assert serving_bytes(shape).limited == found.limited


@pytest.mark.parametrize("method", PRUNING)
def test_readers_are_cut_at_one_magnitude(method, planted) -> None:
    declared = planted(method, {"density": 0.5}, None, (240, 60)).declared()
    given_rows = {"t.f0": rows(), "t.f1": 100 * rows(60, 8)}
    for name in ("t.f0", "t.f1"):
        given_rows[f"{name}.threshold"] = torch.full((len(given_rows[name]), 1), -5.0)
    gates = {"f0": Gates(240, 6, 8, lr=0.1), "f1": Gates(60, 6, 8, lr=0.1)}
    left = METHODS[method].advance(declared, given_rows, gates, lambda: 0.0)
    assert int(unpack_mask(left.carried["f1.mask"], 8).sum()) >= 60 * 8 - 6
    total = sum(int(unpack_mask(bits, 8).sum()) for bits in left.carried.values())
    assert total <= 300 * 8 // 2


@pytest.mark.parametrize("method", PRUNING)
def test_a_density_that_saves_nothing_prunes_nothing(method, planted, train_planted) -> None:
    run = train_planted(planted(method, {"density": 0.95}), epochs=2, steps=2)
    assert run.frozen.groups[0].table.serve == "fp32"
    assert run.vectors().ne(0).all()


def test_deeplight_cuts_every_tenth_step_after_its_warm_up() -> None:
    access = HeldTables(t=rows())
    hook = MagnitudeHook(["t"], total=1920, density=DENSITY, least=KEPT)
    hook.after_step(access, step=10 * EVERY, share=WARM_UP)
    hook.after_step(access, step=EVERY + 1, share=0.5)
    assert torch.equal(access.tables["t"], rows())
    hook.after_step(access, step=2 * EVERY, share=0.5)
    half = int(access.tables["t"].count_nonzero())
    assert KEPT < half < 1920
    hook.after_step(access, step=3 * EVERY + 1, share=1.0)
    left = access.tables["t"]
    assert left.count_nonzero() == KEPT
    assert left[left != 0].abs().min() >= rows().abs().flatten().sort().values[-KEPT]


def test_deeplight_keeps_the_optimiser_state() -> None:
    access = HeldTables(t=rows())
    MagnitudeHook(["t"], total=1920, density=DENSITY, least=KEPT).after_step(
        access, step=0, share=1.0
    )
    assert access.momentum.eq(1).all()
    assert DeepLight.stages[0].restarts is False


def test_deeplight_is_sparse_at_the_end_of_its_first_stage(engine, planted, train_planted) -> None:
    run = train_planted(planted("deeplight", {"density": DENSITY}), engine)
    weight = run.stages[0].local_tables()["t.f0"].weight
    assert weight.count_nonzero() == KEPT


def test_the_first_thresholds_of_pep_have_a_gradient(planted) -> None:
    lowered = Pep().lower(planted("pep", {"density": DENSITY}).declared())
    table = next(table for table in lowered.tables if table.name.endswith("threshold"))
    logits = initial_rows(table, 0).requires_grad_()
    values = initial_rows(lowered.tables[0], 0)
    found = SoftThreshold(8)(torch.cat([values, logits], dim=1), None, None)
    # A tenth of the first range is cut, and the rest tells the thresholds what they cost.
    assert 0.8 < found.ne(0).float().mean() < 0.97
    found.abs().sum().backward()
    assert logits.grad is not None
    assert logits.grad.ne(0).float().mean() > 0.9
    published = torch.full((240, 1), -150.0, requires_grad=True)
    SoftThreshold(8)(torch.cat([values, published], dim=1), None, None).sum().backward()
    assert published.grad is not None
    assert published.grad.eq(0).all()


def test_pep_raises_all_thresholds_alike_until_the_density_is_met() -> None:
    first = rows(240, 1) - 5
    access = HeldTables(t=0.1 * rows(), t_s=first.clone())
    hook = ThresholdHook({"t": "t.s"}, {"t": 240}, width=8, density=DENSITY, least=KEPT)
    hook.after_step(access, step=0, share=1.0)
    risen = access.tables["t.s"] - first
    assert risen.min() > 0
    torch.testing.assert_close(risen, risen[:1].expand_as(risen))
    values = torch.cat([access.tables["t"], access.tables["t.s"]], dim=1)
    # The number that decides is cut by its logit; a sigmoid may round it back.
    assert abs(int(SoftThreshold(8)(values, None, None).count_nonzero()) - KEPT) <= 2
    hook.after_step(access, step=0, share=1.0)
    torch.testing.assert_close(access.tables["t.s"] - first, risen, rtol=0, atol=1e-5)


def test_pep_trains_again_from_the_first_rows_under_the_mask(planted, train_planted) -> None:
    assert Pep.stages[1].restarts
    run = train_planted(planted("pep", {"density": DENSITY}), epochs=2, steps=0)
    first, last = (stage.local_tables()["t.f0"].weight for stage in run.stages)
    assert torch.equal(first, last)
    thresholds = run.stages[0].local_tables()["t.f0.threshold"].weight
    kept = above_threshold(first, thresholds)
    cut = cut_above([kept], KEPT)
    assert torch.equal(run.vectors(), last * (kept > cut))


def test_pep_and_a_planted_scale_keep_the_rows_that_matter(planted, train_planted) -> None:
    run = train_planted(planted("pep", {"density": DENSITY}), epochs=5)
    wanted = run.planted.targets(240).abs()
    kept = run.vectors()[:80].ne(0)
    assert wanted[:80][kept].mean() > 1.5 * wanted[:80][~kept].mean()


def test_gates_of_columns_that_nobody_wants_fall(planted, train_planted) -> None:
    given_options = {"density": DENSITY, "alpha_lr": 0.5}
    run = train_planted(planted("autosrh", given_options, columns=4), steps=30)
    gates = run.stages[0].vectors.maps[0].gates
    assert gates[:, :4].mean() > 0.98
    assert 0 <= gates.min() <= gates[:, 4:].max() < 0.95


def test_gates_change_in_search_steps_only(planted, train_planted) -> None:
    run = train_planted(planted("autosrh", {"density": DENSITY}, columns=4), epochs=2, steps=4)
    assert run.stages[0].vectors.maps[0].gates.eq(1).all()


def test_gates_are_clipped() -> None:
    gates = Gates(10, 2, 4, lr=0.1)
    with torch.no_grad():
        gates.gates.copy_(torch.linspace(-1, 2, 8).view(2, 4))
    ClipHook([gates]).after_step(HeldTables(), step=0, share=0.0)
    assert gates.gates.min() == 0
    assert gates.gates.max() == 1


def test_groups_are_equal_shares_of_the_ids_by_frequency() -> None:
    gates = Gates(10, 3, 1, lr=0.1)
    with torch.no_grad():
        gates.gates.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    found = gates(torch.ones(10, 1), None, torch.arange(10)).flatten()
    assert found.tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_gradient_whose_mean_is_near_zero_is_not_blown_up() -> None:
    gradient = torch.tensor([[1.0, -1.0 + 1e-6], [0.0, 0.0], [4.0, 2.0]])
    found = even_groups(gradient)
    torch.testing.assert_close(found[0], torch.tensor([1.0, -1.0]))
    assert found[1].eq(0).all()
    assert found[2].sign().eq(1).all()
