"""The Triton row update against its reference in float64, on shapes and runs that break kernels."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from hypothesis import given, settings
from hypothesis import strategies as st

from muxrec_kernels.dispatch import Backend
from muxrec_kernels.row_update import (
    KINDS,
    RowState,
    Rule,
    launch,
    new_state,
    reference,
    rounding,
    slots_of_features,
    triton_kernel,
    update_rows,
    update_rows_of_lookup,
)
from muxrec_kernels.testing import Jagged, make_jagged, norm_ratio, poisoned_outputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEEDS = (3, -5, 2**63 - 1)
TOLERANCE = 1e-6
"""As the lookup's: a few hundred roundings of 6e-8 that grow like a root."""
STEPS = {torch.float32: TOLERANCE, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""Stochastic rounding goes up to a whole step of the type, relative to a number."""

BAGS = {
    "all bags empty": make_jagged([0, 0, 0, 0], batch_size=2),
    "one id": make_jagged([1], batch_size=1),
    "one empty bag among full ones": make_jagged([2, 0, 3, 1, 1, 1], batch_size=3),
    "63 and 100 ids": make_jagged([63, 100], batch_size=1, repeat=40),
    "duplicates": make_jagged([9, 12, 1, 5], batch_size=2, repeat=4),
    "extreme ids": Jagged(
        torch.tensor([0, -1, 2**63 - 1, -(2**63)]), torch.tensor([0, 2, 4]), batch_size=2
    ),
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def double(state: RowState) -> RowState:
    return RowState(*(None if part is None else part.double() for part in state))


def compare(
    table: torch.Tensor, bags: Jagged, rule: Rule, *, slots: tuple[int, ...], **options: object
) -> None:
    """One update by Triton and by the reference in float64, of table and state."""
    features = (bags.offsets.numel() - 1) // bags.batch_size
    arguments = (
        bags.ids.to(DEVICE),
        bags.offsets.to(DEVICE),
        slots_of_features(torch.tensor(slots), features).to(DEVICE),
        torch.tensor(SEEDS[: len(slots)], device=DEVICE),
    )
    grad_out = random(bags.batch_size, len(slots) * table.shape[1], seed=1)
    zeros = new_state(rule.kind, table)
    start = RowState(*(None if part is None else random(*part.shape).abs() for part in zeros))
    options = {**options, "batch_size": bags.batch_size, "rule": rule}
    truth, exact = table.double(), double(start)
    update_rows_of_lookup(
        truth,
        exact,
        grad_out.double(),
        *arguments,
        backend="reference",
        **options,  # type: ignore[arg-type]
    )
    with poisoned_outputs():
        update_rows_of_lookup(
            table,
            start,
            grad_out,
            *arguments,
            backend=Backend.TRITON,
            **options,  # type: ignore[arg-type]
        )
    assert norm_ratio(table, truth) <= STEPS[table.dtype]
    for found, expected in zip(start, exact, strict=True):
        if found is not None:
            assert expected is not None
            assert norm_ratio(found, expected) <= TOLERANCE


@pytest.mark.parametrize("bags", BAGS.values(), ids=BAGS.keys())
@pytest.mark.parametrize("pooling", ["sum", "mean", "sqrt"])
def test_every_shape_and_pooling(bags: Jagged, pooling: str) -> None:
    last = (bags.offsets.numel() - 1) // bags.batch_size - 1
    compare(random(29, 4), bags, Rule("sgd", 0.1), slots=(last, 0, 0), pooling=pooling)


@pytest.mark.parametrize("width", [4, 5, 12, 63, 64, 200, 512])
def test_every_width(width: int) -> None:
    bags = make_jagged([3, 1, 2, 1], batch_size=2, repeat=3)
    compare(random(11, width), bags, Rule("adagrad", 0.1), slots=(1, 0), pooling="mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_and_dtype(kind: str, dtype: torch.dtype) -> None:
    table = random(7, 8).to(dtype)
    rule = Rule(kind, 0.1, eps=1e-6, betas=(0.8, 0.9), decay=0.7, step=3, seed=5)
    compare(table, BAGS["duplicates"], rule, slots=(0, 1, 1))


def test_weights_scale_each_id() -> None:
    bags = BAGS["duplicates"]
    weights = torch.linspace(-1, 2, bags.ids.numel()).to(DEVICE)
    for pooling in ("sum", "mean"):
        options = {"pooling": pooling, "weights": weights}
        compare(random(17, 4), bags, Rule("adagrad", 0.1), slots=(1, 0), **options)


def test_features_have_different_numbers_of_slots() -> None:
    slots = slots_of_features(torch.tensor([2, 0, 0]), 3)
    assert slots.tolist() == [[1, 2], [-1, -1], [0, -1]]
    bags = make_jagged([2, 3, 4, 1, 0, 2], batch_size=2)
    compare(random(9, 8), bags, Rule("adagrad", 0.1), slots=(2, 0, 0))


def test_strided_inputs_are_read_as_they_are() -> None:
    ids = torch.tensor([3, 99, 5, 99, 3, 99], device=DEVICE)[::2]
    offsets = torch.tensor([0, 9, 2, 9, 3, 9], device=DEVICE)[::2]
    grad_out = random(4, 2, seed=4).t()
    weights = torch.tensor([0.5, 9, 2, 9, -1, 9], device=DEVICE)[::2]
    slots, seeds = torch.tensor([[0]], device=DEVICE), torch.tensor([5, 9], device=DEVICE)[:1]
    found, expected = random(6, 4), random(6, 4)
    rule = Rule("sgd", 1.0)
    given = (grad_out, ids, offsets, slots, seeds)
    for table, backend in ((found, "triton"), (expected, "reference")):
        update_rows_of_lookup(
            table, RowState(), *given, batch_size=2, rule=rule, weights=weights, backend=backend
        )
    assert norm_ratio(found, expected) <= TOLERANCE


def launch_rows(
    table: torch.Tensor, rows: torch.Tensor, rule: Rule, tile: launch.Tile, seed: int = 1
) -> tuple[float, float]:
    """Distances of table and momentum from the truth after lookups of ``rows`` in small tiles."""
    grad, scales = random(5, table.shape[1], seed=seed), random(rows.numel(), seed=2)
    sources = torch.arange(rows.numel(), dtype=torch.int32, device=DEVICE) % 5
    state = new_state(rule.kind, table)
    truth, exact = table.double(), double(state)
    reference.update_rows(truth, exact, rows, sources, grad.double(), scales=scales, rule=rule)
    with poisoned_outputs():
        lookups = launch.Lookups(rows.int(), sources, scales)
        launch.launch_update(triton_kernel, table, state, lookups, grad, rule=rule, tile=tile)
    assert state.first is not None
    assert exact.first is not None
    return norm_ratio(table, truth), norm_ratio(state.first, exact.first)


@settings(max_examples=25)
@given(
    runs=st.lists(st.integers(1, 14), min_size=1, max_size=6),
    lanes=st.sampled_from([1, 2, 4]),
    steps=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_runs_are_cut_anywhere(runs: list[int], lanes: int, steps: int, seed: int) -> None:
    """Runs within a step, over steps, over chunks, over a merge's lanes; the table's last row."""
    lengths = torch.tensor(runs)
    rows = torch.repeat_interleave(8 - torch.arange(len(runs)), lengths).to(DEVICE)
    rows = rows[torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(seed))]
    tile = launch.Tile(lanes, lanes * steps, 2)
    found = launch_rows(random(9, 2), rows, Rule("adagrad", 0.1), tile)
    assert max(found) <= 2 * TOLERANCE  # A few numbers alone: signs may cancel in a sum.


def test_lookups_that_are_none_change_nothing() -> None:
    table, grad = random(3, 4), random(2, 4)
    rows = torch.tensor([1, 2**31 - 1, 1, 2**31 - 1], dtype=torch.int32, device=DEVICE)
    lookups = launch.Lookups(rows, torch.tensor([0, 1, 1, 0], dtype=torch.int32).to(DEVICE), None)
    expected = table.clone()
    expected[1] -= grad.sum(dim=0)
    for tile in (launch.Tile(4, 4, 1), launch.Tile(1, 1, 1), launch.Tile(1, 2, 2)):
        found = table.clone()
        launch.launch_update(
            triton_kernel, found, RowState(), lookups, grad, rule=Rule("sgd", 1.0), tile=tile
        )
        assert norm_ratio(found, expected) <= TOLERANCE


def test_a_gradient_that_is_not_finite_stays_in_its_row() -> None:
    table, grad = random(6, 4), random(6, 4)
    grad[2, 1] = math.nan
    order = torch.tensor([5, 2, 0, 1, 4, 3], device=DEVICE)
    update_rows(table, RowState(), order, order, grad, rule=Rule("sgd", 1.0), backend="triton")
    assert table.isnan().nonzero().tolist() == [[2, 1]]


def test_an_update_is_the_same_bits_on_every_run() -> None:
    rows = torch.randint(0, 6, (60,), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    grad = random(60, 4)
    found = set()
    for _ in range(3):
        table = random(6, 4, seed=3)
        state = new_state("adagrad", table)
        update_rows(
            table, state, rows, torch.arange(60, device=DEVICE), grad,
            rule=Rule("adagrad", 0.1), backend="triton",
        )  # fmt: skip
        found.add(table.cpu().numpy().tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("mode", ["stochastic", "nearest"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernel_rounds_to_the_reference_bits(dtype: torch.dtype, mode: str) -> None:
    """Each row has one lookup and the sums are exact, so both round the same numbers.

    The numbers run down to fp16's smallest ones, over both signs, past the type's largest one.
    """
    scale = 2.0 ** torch.linspace(-27, 17, 24).round()
    table = torch.zeros(24, 8, dtype=dtype, device=DEVICE)
    grad = random(24, 8) * scale[:, None].to(DEVICE)
    every = torch.arange(24, device=DEVICE)
    rule = Rule("sgd", 1.0, rounding=mode, seed=-7, step=2)
    found, expected = table.clone(), table.clone()
    update_rows(found, RowState(), every, every, grad, rule=rule, backend="triton")
    update_rows(expected, RowState(), every, every, grad, rule=rule, backend="reference")
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))
    assert found.isinf().any() == (dtype == torch.float16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_nearest_is_torch_s_own(dtype: torch.dtype) -> None:
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0))
    special = torch.tensor([0.0, -0.0, 6e-8, 2.9e-8, 6.1e-5, 65504, 65519.9, 65520, math.inf])
    values = torch.cat([bits.int().view(torch.float32), special, -special, random(9999).cpu()])
    found, expected = rounding.round_rows(values, dtype, None), values.to(dtype)
    is_number = ~values.isnan()
    assert found[~is_number].isnan().all()
    assert torch.equal(found[is_number].view(torch.int16), expected[is_number].view(torch.int16))


@pytest.mark.parametrize("value", [1.0003, -3.0e-5, 2.2e-8, 1000.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stochastic_rounding_is_right_on_average(dtype: torch.dtype, value: float) -> None:
    rows = torch.arange(4096)
    words = rounding.random_words(Rule("sgd", 1.0, seed=3, step=9), rows, 32)
    exact = torch.full(words.shape, value)
    found = rounding.round_rows(exact, dtype, words).double()
    low, high = found.min(), found.max()
    assert low < exact[0, 0] < high
    # Both neighbours and nothing else; the mean of n draws strays by a step / (2 sqrt(n)) at most.
    assert ((found == low) | (found == high)).all()
    stray = 5 * float(high - low) / (2 * math.sqrt(found.numel()))
    assert abs(float(found.mean()) - float(exact[0, 0].double())) <= stray


def test_random_bits_are_even_and_differ_by_seed_step_row_and_column() -> None:
    words = rounding.random_words(Rule("sgd", 1.0), torch.arange(2048), 64)
    for bit in range(32):
        assert abs(float((words >> bit & 1).double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(2**17)
    assert words.unique().numel() > 0.999 * words.numel()
    for other in (Rule("sgd", 1.0, seed=1), Rule("sgd", 1.0, step=2)):
        again = rounding.random_words(other, torch.arange(2048), 64)
        assert float((again == words).double().mean()) < 1e-3


def test_updates_below_half_a_step_add_up() -> None:
    """400 updates of a 40th of a step move a bf16 table by ten steps; to nearest, by none."""
    every, start = torch.arange(500), torch.ones(500, 8, dtype=torch.bfloat16)
    grad = torch.full((500, 8), -(2.0**-7) / 40)
    moved = {}
    for mode in ("stochastic", "nearest"):
        table = start.clone()
        for step in range(400):
            rule = Rule("sgd", 1.0, rounding=mode, step=step + 1)
            update_rows(table, RowState(), every, every, grad, rule=rule, backend="reference")
        moved[mode] = float((table.double() - 1).mean() / 2**-7)
    assert moved["nearest"] == 0.0
    # Each number is a sum of 400 draws that are 1 in a 40th of all cases: variance 400 / 40.
    assert abs(moved["stochastic"] - 10) < 5 * math.sqrt(10 / table.numel())


def test_adam_is_torch_s_where_every_row_is_read() -> None:
    table = random(6, 4).cpu()
    other = table.clone().requires_grad_()
    theirs = torch.optim.Adam([other], lr=0.1, betas=(0.8, 0.95), eps=1e-6)
    state, every = new_state("adam", table), torch.arange(6)
    for step in range(1, 5):
        grad = random(6, 4, seed=step).cpu()
        rule = Rule("adam", 0.1, eps=1e-6, betas=(0.8, 0.95), step=step)
        update_rows(table, state, every, every, grad, rule=rule, backend="reference")
        other.grad = grad
        theirs.step()
    torch.testing.assert_close(table, other.detach(), rtol=1e-5, atol=1e-6)


def arguments(**changed: object) -> tuple[list[object], dict[str, object]]:
    given: dict[str, object] = {
        "table": torch.zeros(4, 2),
        "state": RowState(torch.zeros(4)),
        "grad_out": torch.zeros(2, 2),
        "ids": torch.tensor([1, 2]),
        "offsets": torch.tensor([0, 1, 2]),
        "feature_slots": torch.tensor([[0]]),
        "slot_seeds": torch.tensor([5]),
        "batch_size": 2,
        "rule": Rule("adagrad", 0.1),
        **changed,
    }
    return list(given.values())[:7], {name: given[name] for name in list(given)[7:]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": torch.zeros(4, 4)[:, :2]}, "contiguous"),
        ({"table": torch.zeros(4, 2, dtype=torch.int32)}, "floating-point"),
        ({"table": torch.zeros(4, 2, requires_grad=True)}, "requires_grad=True"),
        ({"state": RowState()}, "state.first of adagrad must be"),
        ({"state": RowState(torch.zeros(3))}, "state.first of adagrad must be"),
        ({"ids": torch.tensor([1, 2], dtype=torch.int32)}, "ids must be"),
        ({"grad_out": torch.zeros(2, 3)}, "the gradient must be float32"),
        ({"feature_slots": torch.tensor([0])}, "feature_slots must be"),
        ({"offsets": torch.tensor([0, 2])}, "F \\* batch_size"),
        ({"weights": torch.ones(3)}, "weights must be float32"),
        ({"pooling": "max"}, "pooling must be one of"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, object], message: str) -> None:
    given, options = arguments(**changed)
    with pytest.raises(ValueError, match=message):
        update_rows_of_lookup(*given, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "lamb"}, "kind must be one of"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"lr": -0.1}, "must not be negative"),
        ({"decay": 1.0}, "decays must lie"),
        ({"step": 0}, "counted from 1"),
    ],
)
def test_a_wrong_rule_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**{"kind": "sgd", "lr": 0.1, **changed})  # type: ignore[arg-type]


def test_rows_and_sources_must_be_as_long() -> None:
    with pytest.raises(ValueError, match="as long"):
        update_rows(
            torch.zeros(4, 2), RowState(), torch.tensor([1, 2]), torch.tensor([0]),
            torch.zeros(1, 2), rule=Rule("sgd", 0.1),
        )  # fmt: skip
